"""Reader: from a key context to an answer, written freely or chosen from the text.

`free`: the model continues the prompt. `extract`: the best records of the context are found by a
second look, and the answer is a span of them, grounded by construction. `auto` decides by the
model, the text and the question.
"""

import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from xl3m_core.context import KeyContext
from xl3m_core.errors import ModelError
from xl3m_core.extraction import Extract, best_span
from xl3m_core.inference.executor import ModelExecutor
from xl3m_core.inference.model import LanguageModel
from xl3m_core.lexical import QuestionWords
from xl3m_core.measure import entropy
from xl3m_core.method import AUTO_ANSWER, AnswerMode, Method
from xl3m_core.relevance import DIGITS
from xl3m_core.second_look import cut_records, promising
from xl3m_core.segment import Segment
from xl3m_core.smoothing import is_running_text

READ_RECORDS = 2
"""Records that spans are taken from, each read alone: a small model mixes up several."""
OnText = Callable[[str], None]

# Questions that ask for more than a few words of the text.
_OPEN = re.compile(
    r"\W*(?:please\s+)?(?:explain|describe|summari[sz]e|outline|discuss|compare|elaborate|list|tell"
    r"|how\s+(?:is|are|was|were|do|does|did|can|could|should|would|will|to|come))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer's text, and minus the entropy of its first token in nats."""

    text: str
    certainty: float


class Scorer(Protocol):
    """What the second look needs of an engine."""

    def words(self, question: str) -> QuestionWords:
        """The question's words and their weights."""

    def record_scores(self, records: Sequence[str], question: str) -> list[float]:
        """How relevant each record is, in nats a token."""


class Reader:
    """Answers with one model by one method. Any thread may call any method."""

    def __init__(
        self, model: LanguageModel, method: Method, executor: ModelExecutor, scorer: Scorer
    ) -> None:
        self.model, self.method = model, method
        self.executor, self.scorer = executor, scorer
        self.prompt = lru_cache(maxsize=64)(self._prompt)

    def assemble(self, ranked: Sequence[Segment], question: str) -> KeyContext:
        """The key context for a question; ranked: segments, the most certain first."""

        def count_prompts(texts: Sequence[str]) -> list[int]:
            return [len(self.prompt(text, question)) for text in texts]

        budget = self.model.window - self.method.answer_tokens
        return KeyContext.assemble(ranked, budget, count_prompts)

    def mode(self, context: str, question: str) -> AnswerMode:
        """`free` or `extract`: as the method or the model's config says; else a model that is small
        extracts the answers to look-up questions from logs and tables, and writes all others."""
        for chosen in (self.method.answer, self.model.answer):
            if chosen != AUTO_ANSWER:
                return chosen
        return "extract" if is_look_up(question) and not is_running_text(context) else "free"

    def prefill(self, ranked: Sequence[Segment], question: str) -> None:
        """Read the prompt of an answer from these segments, so that `answer` is fast then. An
        answer that will be extracted has no such prompt."""
        context = self.assemble(ranked, question).text
        if self.mode(context, question) == "free":
            prompt = self.prompt(context, question)
            with self._priority(len(prompt)):
                self.model.prefill(prompt)

    def answer(
        self, context: KeyContext, question: str, on_text: OnText | None = None
    ) -> Generated:
        """The answer; see `Engine.answer`."""
        if not context.text:
            raise ModelError(
                "no segment can be read: the logits are NaN for all of them, or the question and "
                f"the answer leave no room in the model's window of {self.model.window} tokens"
            )
        extract = None
        if self.mode(context.text, question) == "extract":
            extract = self._extract(context.text, question)
        if extract is None:
            return self._write(context.text, question, on_text)
        answer = Generated(extract.text, _certainty(extract.entropy))
        if on_text:
            on_text(answer.text)
        return answer

    def _extract(self, context: str, question: str) -> Extract | None:
        """The best span of the best records; None if nothing can be extracted."""
        read = self._best_records(context, question)
        tokens = sum(self.model.count_tokens([record for record, _ in read]))
        with self._priority(tokens):
            found = [(best_span(self.model, record, question), nats) for record, nats in read]
        spans = [(extract, nats) for extract, nats in found if extract]
        if not spans:
            return None
        return max(spans, key=lambda pair: pair[0].score + pair[1])[0]

    def _best_records(self, context: str, question: str) -> list[tuple[str, float]]:
        """The records to read and how relevant each is, the most relevant first."""
        records = cut_records(context, self.method.records)
        if len(records) > 1:
            records = promising(records, self.scorer.words(question))
        scores = self.scorer.record_scores(records, question)
        ranked = sorted(zip(records, scores, strict=True), key=lambda pair: -pair[1])
        return ranked[:READ_RECORDS]

    def _write(self, context: str, question: str, on_text: OnText | None) -> Generated:
        """Generate the answer greedily."""
        prompt = self.prompt(context, question)
        with self._priority(len(prompt)) as claim_idle_threads:

            def give(text: str) -> None:
                claim_idle_threads()
                if on_text:
                    on_text(text)

            text, first = self.model.generate(prompt, self.method.answer_tokens, give)
        return Generated(text.strip(), _certainty(float(entropy(first[None])[0])))

    def _priority(self, tokens: int) -> AbstractContextManager[Callable[[], None]]:
        """Priority over batches; beside those in progress only if the model can extend a cache."""
        return self.executor.priority(tokens if self.model.can_extend_cache else math.inf)

    def _prompt(self, context: str, question: str) -> list[int]:
        """Token ids of a key context's text with the question after it. `prompt` caches them:
        `assemble` counts the tokens of the same prompt that `answer` needs."""
        return self.model.prompt(context + self.model.template.replace("{question}", question))


def is_look_up(question: str) -> bool:
    """Whether a few words of a text may answer the question."""
    return _OPEN.match(question) is None


def _certainty(first_entropy: float) -> float:
    """Minus the entropy of the first token. Raises ModelError if that is NaN."""
    if math.isnan(first_entropy):
        raise ModelError("the logits for the first token of the answer are NaN")
    return round(-first_entropy, DIGITS)
