"""Engine: scores segments for questions, and answers from a key context.

Texts in, scores and answers out: a model with the numbers of a `Method`, and an executor.
"""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial

from xl3m_core.context import KeyContext
from xl3m_core.errors import MethodError, ModelError, QuestionError
from xl3m_core.inference.batching import Row, balanced_budget
from xl3m_core.inference.executor import ModelExecutor
from xl3m_core.inference.model import LanguageModel
from xl3m_core.measure import entropy
from xl3m_core.method import Measure, Method
from xl3m_core.scoring import SCORE_DIGITS, Scores, plan_batches, score_batches
from xl3m_core.segment import Segment
from xl3m_core.segmenter import Segmenter

BATCH_TOKENS = 4096
"""Tokens of a batch, with padding. On two cores larger ones are no faster, smaller ones slower."""
JOINING_TOKENS = 8
"""A segment may have this many tokens more than its records, which were counted one by one."""

logger = logging.getLogger("xl3m")


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer's text, and minus the entropy of its first token in nats."""

    text: str
    certainty: float


class Engine:
    """Scores and answers with one model by one method.

    Answers, and scores of at most as many pairs as there are workers, take priority over scoring
    batches that have not begun. Any thread may call any method.
    """

    def __init__(
        self, model: LanguageModel, method: Method | None = None, batch_tokens: int = BATCH_TOKENS
    ) -> None:
        self.model = model
        self.method = method or Method.fit(model.window, k=model.k)
        if self.method.window > model.window:
            raise MethodError(
                f"the method is for a window of {self.method.window} tokens, "
                f"but the model's is {model.window}"
            )
        self._check_frame()
        self.batch_tokens = batch_tokens
        self.shortened = 0  # segments of which only the last tokens were read
        self._submitted = ThreadPoolExecutor(2, thread_name_prefix="scores")
        self._queueing = threading.Lock()
        self.executor = ModelExecutor.on(model.device) if model.thread_safe else ModelExecutor(1)
        self.suffix = lru_cache(maxsize=4096)(self._suffix)
        self.prompt = lru_cache(maxsize=64)(self._prompt)

    def _check_frame(self) -> None:
        """Raise MethodError unless a segment fits the window beside the chat template."""
        if not self.model.has_chat_template:
            return
        method, frame = self.method, len(self.model.prompt(""))
        needed = frame + method.segment_tokens + method.question_tokens + method.answer_tokens
        if needed > self.model.window:
            raise MethodError(
                f"chat template {frame} + segment {method.segment_tokens} + question "
                f"{method.question_tokens} + answer {method.answer_tokens} = {needed} tokens, but "
                f"the model's window is {self.model.window}: make one of them smaller"
            )

    def segmenter(self) -> Segmenter:
        """A segmenter that counts in this model's tokens."""
        method = self.method
        return Segmenter(
            self.model.count_tokens, method.segment_tokens, method.overlap_tokens, method.records
        )

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The score of each (segment text, question) pair, in nats, by the method's measure.

        Rounded to 1e-4: a smaller difference comes from the other rows of the batch, and must not
        decide between segments with the same text. Equal scores are ordered by segment index.

        Raises QuestionError for a question that is empty or too long.
        """
        return self.scores(pairs, [self.method.measure])[self.method.measure]

    def scores(
        self, pairs: Sequence[tuple[str, str]], measures: Sequence[Measure]
    ) -> dict[Measure, list[float]]:
        """`score` by several measures at once.

        Pairs of one text with several questions cost little more than the longest of them: the
        segment goes through the model once. At most as many pairs as there are workers take
        priority over batches that have not begun.
        """
        return self._score(pairs, measures, len(pairs) <= self.executor.workers)[0]

    def submit(self, pairs: Sequence[tuple[str, str]]) -> Future[Scores]:
        """`score` in the background. Two calls are in progress at a time, in their order: workers
        that have no batch left of the first go on with the second.

        Raises RuntimeError inside an answer's `on_text`; the future raises what `score` raises.
        """
        self.executor.gate.check_outside()
        return self._submitted.submit(self.timed_score, pairs)

    def timed_score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """`score`, and how long it took. Fewer pairs than there are workers take priority."""
        measure = self.method.measure
        scores, seconds = self._score(pairs, [measure], len(pairs) < self.executor.workers)
        return Scores(scores[measure], seconds)

    def _score(
        self, pairs: Sequence[tuple[str, str]], measures: Sequence[Measure], at_once: bool
    ) -> tuple[dict[Measure, list[float]], float]:
        """The scores by measure, and the seconds of work, divided by the workers that shared it.

        at_once: all batches are one call, which takes priority over those that wait.
        """
        scores = {measure: [0.0] * len(pairs) for measure in measures}
        with self._queueing:  # otherwise a short call overtakes one that is being tokenized
            workers = 1 if at_once else self.executor.workers
            batches, tokens = plan_batches(
                self.model, self._rows(pairs), self.batch_tokens, workers
            )
            parts = [batches] if at_once and batches else [[batch] for batch in batches]
            calls = [partial(score_batches, self.model, part, scores) for part in parts]
            size = tokens // max(1, len(calls))
            job = None if at_once else self.executor.submit(calls, size)
        seconds = job.results() if job else self.executor.run(calls, size)
        return scores, sum(seconds) / max(1, min(self.executor.workers, len(calls)))

    def budget(self, lengths: Sequence[int]) -> int:
        """How many tokens each batch gets if rows of these lengths are scored."""
        return balanced_budget(lengths, self.batch_tokens, self.executor.workers)

    def assemble(self, ranked: Sequence[Segment], question: str) -> KeyContext:
        """The key context for a question; ranked: segments, the most certain first."""

        def count_prompts(texts: Sequence[str]) -> list[int]:
            return [len(self.prompt(text, question)) for text in texts]

        budget = self.model.window - self.method.answer_tokens
        return KeyContext.assemble(ranked, budget, count_prompts)

    def prefill(self, ranked: Sequence[Segment], question: str) -> None:
        """Read the prompt of an answer from these segments, so that `answer` is fast then."""
        prompt = self.prompt(self.assemble(ranked, question).text, question)
        with self._priority(prompt):
            self.model.prefill(prompt)

    def answer(
        self, context: KeyContext, question: str, on_text: Callable[[str], None] | None = None
    ) -> Generated:
        """Generate the answer to the question from the key context, greedily.

        on_text is called with each piece of the answer; it must not call the engine (RuntimeError).
        Raises ModelError for a context without text: the logits of all segments were NaN, or the
        question leaves no room for a segment in the window.
        """
        if not context.text:
            raise ModelError(
                "no segment can be read: the logits are NaN for all of them, or the question and "
                f"the answer leave no room in the model's window of {self.model.window} tokens"
            )
        prompt = self.prompt(context.text, question)
        with self._priority(prompt) as claim_idle_threads:

            def give(text: str) -> None:
                claim_idle_threads()
                if on_text:
                    on_text(text)

            text, first = self.model.generate(prompt, self.method.answer_tokens, give)
        certainty = round(-float(entropy(first[None])[0]), SCORE_DIGITS)
        if math.isnan(certainty):
            raise ModelError("the logits for the first token of the answer are NaN")
        return Generated(text.strip(), certainty)

    def _priority(self, prompt: Sequence[int]) -> AbstractContextManager[Callable[[], None]]:
        """Priority over batches; beside those in progress only if the model can extend a cache."""
        return self.executor.priority(len(prompt) if self.model.can_extend_cache else math.inf)

    def _prompt(self, context: str, question: str) -> list[int]:
        """Token ids of a key context's text with the question after it. `prompt` caches them:
        `assemble` counts the tokens of the same prompt that `answer` needs."""
        return self.model.prompt(context + self.render_question(question))

    def render_question(self, question: str) -> str:
        """The question in the model's template, as it stands after a segment or a context."""
        return self.model.template.replace("{question}", question)

    def _suffix(self, question: str) -> tuple[int, ...]:
        """The ids of a question in its template: all of its rows end with them. Raises
        QuestionError."""
        if not question.strip():
            raise QuestionError("the question is empty")
        ids = self.model.encode([self.render_question(question)])[0]
        if len(ids) > self.method.question_tokens:
            raise QuestionError(
                f"the question takes {len(ids)} tokens with its template, and the method leaves it "
                f"{self.method.question_tokens} of the window's {self.model.window}: "
                "shorten it, or leave more for questions"
            )
        return tuple(ids)

    def _rows(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """[BOS] segment question, without the segment's first tokens if they do not fit: its
        records were counted one by one, and joined they may have a few tokens more."""
        texts = list(dict.fromkeys(text for text, _ in pairs))
        ids = dict(zip(texts, map(tuple, self.model.encode(texts)), strict=True))
        bos, rows = tuple(self.model.bos), list[Row]()
        for i, (text, question) in enumerate(pairs):
            suffix = self.suffix(question)
            room = self.model.window - len(suffix) - len(bos)
            if len(ids[text]) > room:
                self._note_shortened(len(ids[text]), room)
            rows.append(Row(i, bos + ids[text][-room:], suffix))
        return rows

    def _note_shortened(self, tokens: int, room: int) -> None:
        """Count a segment of which more than a few tokens are left out; log the first."""
        if tokens <= room + self.method.overlap_tokens + JOINING_TOKENS:
            return
        self.shortened += 1
        if self.shortened == 1:
            logger.warning(
                "a segment of %d tokens was cut for another model: this one reads only its last %d "
                "tokens beside the question. Further cases are not logged", tokens, room,
            )  # fmt: skip
