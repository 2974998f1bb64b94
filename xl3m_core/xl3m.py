"""XL3M: the whole method on one text.

Reads a text once, keeps the most certain segments, and answers from them.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xl3m_core.answer import Answer, Evidence
from xl3m_core.engine import Engine
from xl3m_core.errors import ModelError
from xl3m_core.inference.loading import BUNDLED_MODEL
from xl3m_core.inference.model import LanguageModel
from xl3m_core.method import AUTO_MEASURE, Method
from xl3m_core.segment import Line, Segment
from xl3m_core.smoothing import REACH, smoothed
from xl3m_core.topk import TopK

Text = str | Iterable[str | Sequence[Line]]
"""A text; or its chunks, each a text or lines with their times."""


class XL3M:
    """The whole method on one text of any length, complete or in chunks."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def load(
        cls, name: str | Path | None = None, *, window: int | None = None, **method: Any
    ) -> "XL3M":
        """Load a model by folder or hub id; by default the bundled one.

        window: in tokens, for a model whose files do not state it. method: arguments of
        `Method.fit`. Raises ModelError and MethodError.
        """
        model = LanguageModel.load(name or BUNDLED_MODEL, window=window)
        method["k"] = method.get("k") or model.k
        if method.get("measure", AUTO_MEASURE) == AUTO_MEASURE:
            method["measure"] = model.measure
        return cls(Engine(model, Method.fit(model.window, **method)))

    def answer(
        self,
        text: str | Iterable[str],
        question: str,
        *,
        on_progress: Callable[[int], None] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer the question from the text, given whole or in chunks.

        Keeps the k best segments and a few batches in memory, however long the text is.
        on_progress is called with the number of tokens scored so far, on_text with each piece of
        the answer. Raises QuestionError for a question that is empty or too long.
        """
        (answer,) = self._answers(text, [question], on_progress, on_text)
        return answer

    def answers(
        self,
        text: Text,
        questions: Sequence[str],
        on_progress: Callable[[int], None] | None = None,
    ) -> Iterator[Answer]:
        """`answer` for each question in turn; the text is read once for all of them."""
        return self._answers(text, questions, on_progress, None)

    def _answers(
        self,
        text: Text,
        questions: Sequence[str],
        on_progress: Callable[[int], None] | None,
        on_text: Callable[[str], None] | None,
    ) -> Iterator[Answer]:
        for question in questions:
            self.engine.suffix(question)  # raises QuestionError before a long text is read
        started = time.perf_counter()
        try:
            rankings = self._scan(_chunks(text), questions, on_progress)
        except ModelError as error:
            yield from (_failed(question, error) for question in questions)
            return
        seconds = time.perf_counter() - started
        for question, best in zip(questions, rankings, strict=True):
            yield self._answer(question, best, seconds, on_text)

    def _answer(
        self,
        question: str,
        best: "RunningTopK",
        seconds: float,
        on_text: Callable[[str], None] | None,
    ) -> Answer:
        """The answer from the most certain segments; seconds: how long the scan took."""
        if not best.total:
            return Answer(question=question, error="the text is empty")
        started = time.perf_counter()
        ranked = best.ranked()
        context = self.engine.assemble([segment for segment, _ in ranked], question)
        try:
            generated = self.engine.answer(context, question, on_text)
        except ModelError as error:
            return _failed(question, error)
        scores = {segment.index: score for segment, score in ranked}
        return Answer(
            question=question,
            answer=generated.text,
            certainty=generated.certainty,
            coverage=1.0,
            evidence=tuple(Evidence.of("", s, scores[s.index]) for s in context.segments),
            timings={"scan": seconds, "answer": time.perf_counter() - started},
        )

    def _scan(
        self,
        chunks: Iterable[str | Sequence[Line]],
        questions: Sequence[str],
        on_progress: Callable[[int], None] | None,
    ) -> list["RunningTopK"]:
        """The k most certain segments for each question."""
        rankings = [RunningTopK(TopK(self.engine.method.k)) for _ in questions]
        tokens = 4 * self.engine.batch_tokens  # several forwards, so that lengths sort well
        for batch in self.engine.segmenter().batches(chunks, tokens):
            pairs = [(segment.text, question) for question in questions for segment in batch]
            scores = iter(self.engine.score(pairs))
            is_smoothed = [self.engine.is_smoothed(segment.text) for segment in batch]
            for best in rankings:
                for segment, averaged in zip(batch, is_smoothed, strict=True):
                    best.add(segment, next(scores), averaged)
            if on_progress:
                on_progress(batch[-1].end_token)
        return rankings


@dataclass(slots=True)
class RunningTopK:
    """The most relevant segments so far, and the number of all segments.

    Segments come in their order. A segment is ranked by its final score, once the neighbours that
    it is smoothed over are known.
    """

    top: TopK
    kept: dict[int, Segment] = field(default_factory=dict)
    total: int = 0
    _scores: dict[int, float] = field(default_factory=dict)
    _pending: deque[tuple[Segment, bool]] = field(default_factory=deque)

    def add(self, segment: Segment, score: float, is_smoothed: bool = False) -> None:
        """Add a segment with its own score; another one may be dropped for it."""
        self.total += 1
        self._scores[segment.index] = score
        self._pending.append((segment, is_smoothed))
        self._settle(segment.index - REACH)
        self._scores.pop(segment.index - 2 * REACH, None)

    def ranked(self) -> list[tuple[Segment, float]]:
        """The most relevant first, with their final scores."""
        self._settle(self._pending[-1][0].index if self._pending else -1)
        return [(self.kept[index], score) for index, score in self.top.best()]

    def _settle(self, last: int) -> None:
        """Rank the pending segments up to this index."""
        while self._pending and self._pending[0][0].index <= last:
            segment, is_smoothed = self._pending.popleft()
            own = self._scores[segment.index]
            score = smoothed(segment.index, self._scores.get) if is_smoothed else own
            self.kept[segment.index] = segment
            self.kept.pop(self.top.add(segment.index, score), None)  # type: ignore[arg-type]


def _failed(question: str, error: ModelError) -> Answer:
    return Answer(question=question, error=f"the model failed: {error}")


def _chunks(text: Text, size: int = 1 << 16) -> Iterator[str | Sequence[Line]]:
    """The text in pieces of at most `size` characters, so that one piece at a time is processed."""
    for chunk in [text] if isinstance(text, str) else text:
        if isinstance(chunk, str):
            yield from (chunk[start : start + size] for start in range(0, len(chunk), size))
        else:
            yield chunk
