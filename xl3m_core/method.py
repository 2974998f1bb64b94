"""Method: the sizes of one run of XL3M, fitted to a model's window.

The paper does not state segment length, overlap or k, so the defaults are this project's; each
follows from the window alone.
"""

from dataclasses import dataclass
from typing import Literal, Self, get_args

from xl3m_core.errors import MethodError
from xl3m_core.records import AUTO, record_start

Measure = Literal["entropy", "top_p", "likelihood", "hybrid", "fused"]
"""How a segment is scored; see `relevance`."""

MEASURES: tuple[Measure, ...] = get_args(Measure)

AnswerMode = Literal["auto", "free", "extract"]
"""Whether an answer is written, or a span of the text; see `reader`."""
ANSWER_MODES: tuple[AnswerMode, ...] = get_args(AnswerMode)
AUTO_ANSWER: AnswerMode = "auto"

AUTO_MEASURE = "auto"
"""In place of a measure: what the model's config recommends, else `DEFAULT_MEASURE`."""
DEFAULT_MEASURE: Measure = "fused"
"""The best measured with real texts and a small language model, see docs/experiments.md."""


@dataclass(frozen=True, slots=True)
class Method:
    """Sizes in tokens. Create it with `fit`, which derives and checks them. records: the rule for
    where a record begins; see `records.record_start`. answer: whether answers are written or spans
    of the text; see `reader`."""

    window: int
    segment_tokens: int
    overlap_tokens: int
    question_tokens: int
    answer_tokens: int
    k: int
    measure: Measure = "entropy"
    records: str = AUTO
    answer: AnswerMode = AUTO_ANSWER

    @classmethod
    def fit(
        cls,
        window: int,
        *,
        segment_tokens: int | None = None,
        overlap_tokens: int | None = None,
        question_tokens: int | None = None,
        answer_tokens: int | None = None,
        k: int | None = None,
        measure: Measure = "entropy",
        records: str = AUTO,
        answer: AnswerMode = AUTO_ANSWER,
    ) -> Self:
        """The method for a window of this many tokens; sizes that are None are derived.

        By default k is at least four, so that an answer can combine segments, and at most eight,
        because each further segment is less certain than the others.

        Raises MethodError, with the numbers, if they do not fit the window.
        """
        question = min(128, window // 8) if question_tokens is None else question_tokens
        room_for_answer = min(64, window // 16) if answer_tokens is None else answer_tokens
        room = window - question - room_for_answer - 1
        share = room // max(k or 4, 4)
        segment = min(512, max(share, 1)) if segment_tokens is None else segment_tokens
        overlap = segment // 8 if overlap_tokens is None else overlap_tokens
        best = min(8, max(room // max(segment, 1), 1)) if k is None else k
        method = cls(
            window, segment, overlap, question, room_for_answer, best, measure, records, answer
        )
        method.check()
        return method

    @property
    def row_tokens(self) -> int:
        """Tokens of a segment and a question."""
        return self.segment_tokens + self.question_tokens

    def check(self) -> None:
        """Raise MethodError unless scoring and answering both fit the window."""
        if self.measure not in MEASURES:
            raise MethodError(f"unknown measure {self.measure!r}: choose one of {MEASURES}")
        if self.answer not in ANSWER_MODES:
            raise MethodError(f"unknown answer mode {self.answer!r}: choose one of {ANSWER_MODES}")
        try:
            record_start(self.records)
        except ValueError as error:
            raise MethodError(f"the rule for where a record begins: {error}") from error
        if min(self.segment_tokens, self.question_tokens, self.answer_tokens, self.k) < 1:
            raise MethodError(f"segment, question, answer and k must be at least 1: {self}")
        if not 0 <= self.overlap_tokens < self.segment_tokens:
            raise MethodError(
                f"overlap {self.overlap_tokens} must be smaller than the segment "
                f"({self.segment_tokens} tokens)"
            )
        scoring = 1 + self.segment_tokens + self.question_tokens
        if scoring > self.window:
            raise MethodError(
                f"start 1 + segment {self.segment_tokens} + question {self.question_tokens} "
                f"= {scoring} tokens, but the model's window is {self.window}: "
                "make the segment or the question shorter"
            )
        answering = 1 + self.k * self.segment_tokens + self.question_tokens + self.answer_tokens
        if answering > self.window:
            raise MethodError(
                f"start 1 + k {self.k} x segment {self.segment_tokens} + question "
                f"{self.question_tokens} + answer {self.answer_tokens} = {answering} tokens, "
                f"but the model's window is {self.window}: make one of them smaller"
            )
