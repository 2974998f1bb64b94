"""Engine: score segments against questions, answer from a key context.

Knows the model and the method's numbers; not where the text comes from or where scores go.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain

import torch
from torch import Tensor

from xl3m_core.context import KeyContext
from xl3m_core.errors import MethodError, ModelError, QuestionError
from xl3m_core.inference.batching import (
    Batch,
    Row,
    RowBatch,
    balanced_budget,
    batches,
    group_by_segment,
)
from xl3m_core.inference.executor import ModelExecutor
from xl3m_core.inference.model import LanguageModel
from xl3m_core.measure import IGNORE_INDEX, certainty, entropy, logits_needed
from xl3m_core.method import Measure, Method
from xl3m_core.segment import Segment, Segmenter

# Rows go through the model in batches of this many tokens, padding counted. Measured on two
# cores: larger batches are no faster, and smaller ones slower.
BATCH_TOKENS = 4096
SCORE_DIGITS = 4  # finer differences come from what was read beside a row, or before

FEW = 8  # tokens more than were counted, line by line, that are no sign of another model

logger = logging.getLogger("xl3m")


@dataclass(frozen=True, slots=True)
class Scores:
    """The score of each pair, in nats, and how many seconds the model worked on them."""

    values: list[float]
    seconds: float


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer's text, and minus the entropy of its first token in nats."""

    text: str
    certainty: float


class Engine:
    """A model at work by a method. Answers, and scores of no more pairs than there are lanes, go
    ahead of what another thread has begun to score and is not being read yet."""

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
        self.shortened = 0  # segments that were read in part, as they did not fit
        self._background = ThreadPoolExecutor(2, thread_name_prefix="scores")
        self._queueing = threading.Lock()
        self.executor = ModelExecutor.on(model.device) if model.thread_safe else ModelExecutor(1)
        self.suffix = lru_cache(maxsize=4096)(self._suffix)
        self.prompt = lru_cache(maxsize=64)(self._prompt)

    def _check_frame(self) -> None:
        """A chat template takes its part of the window too: a segment must fit beside it."""
        if not self.model.has_chat_template:
            return
        method, frame = self.method, len(self.model.prompt(""))
        needed = frame + method.segment_tokens + method.question_tokens + method.answer_tokens
        if needed > self.model.window:
            raise MethodError(
                f"chat template {frame} + segment {method.segment_tokens} + question "
                f"{method.question_tokens} + answer {method.answer_tokens} = {needed} tokens, but "
                f"the model's window is {self.model.window}: take less of one of them"
            )

    def segmenter(self) -> Segmenter:
        """A segmenter that counts in this model's tokens."""
        method = self.method
        return Segmenter(
            self.model.count_tokens, method.segment_tokens, method.overlap_tokens, method.records
        )

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The certainty of each (segment text, question) pair, in nats; see `measure.certainty`.

        Rounded to 1e-4: a finer difference comes from the rows that shared a batch, and would
        decide between segments that say the same. Equal scores are ordered by segment index.

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
        return self._background.submit(self.timed_score, pairs)

    def timed_score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """`score`, and how long it took. Fewer pairs than there are workers take priority."""
        measure = self.method.measure
        scores, seconds = self._score(pairs, [measure], len(pairs) < self.executor.workers)
        return Scores(scores[measure], seconds)

    def _score(
        self, pairs: Sequence[tuple[str, str]], measures: Sequence[Measure], at_once: bool
    ) -> tuple[dict[Measure, list[float]], float]:
        """The scores by measure, and how many seconds the workers took, side by side.

        at_once: all batches are one call, which takes priority over those that wait.
        """
        scores = {measure: [0.0] * len(pairs) for measure in measures}
        with self._queueing:  # otherwise a short call overtakes one that is being tokenized
            batches, tokens = self._batches(self._rows(pairs), at_once)
            parts = [batches] if at_once and batches else [[batch] for batch in batches]
            calls = [partial(self._score_batches, part, scores) for part in parts]
            size = tokens // max(1, len(calls))
            job = None if len(calls) == 1 else self.executor.submit(calls, size)
        seconds = job.results() if job else self.executor.run(calls, size)
        return scores, sum(seconds) / max(1, min(self.executor.workers, len(calls)))

    def _batches(self, rows: Sequence[Row], at_once: bool) -> tuple[list[Batch], int]:
        """The batches of the rows, and how many tokens they have in all."""
        budget = max(1, self.batch_tokens // 2)
        shared, single = (
            group_by_segment(rows, budget) if self.model.can_share_prefix else ([], rows)
        )
        lengths = [*map(len, single)]
        all_lengths = [*lengths, *chain.from_iterable(group.lengths for group in shared)]
        budget = self.batch_tokens if at_once else self.budget(all_lengths)
        found: list[Batch] = [
            RowBatch([single[i] for i in chosen])
            for chosen in batches(lengths, budget, even=not self.model.can_pad)
        ]
        found += chain.from_iterable(group.split(budget) for group in shared)
        return found, sum(all_lengths)

    def budget(self, lengths: Sequence[int]) -> int:
        """How many tokens a batch of rows of these lengths has."""
        return balanced_budget(lengths, self.batch_tokens, self.executor.workers)

    def _score_batches(self, batches: Sequence[Batch], scores: dict[Measure, list[float]]) -> float:
        """Score batches, write each pair's scores, and return the seconds it took."""
        started = time.perf_counter()
        for batch in batches:
            for rows, logits in self._logits(batch, [*scores]):
                _write_scores(scores, rows, logits)
        return time.perf_counter() - started

    def _logits(
        self, batch: Batch, measures: Sequence[Measure]
    ) -> Iterator[tuple[Sequence[Row], Tensor]]:
        """Rows of the batch with the logits (B, P, V) of their last positions, part by part."""
        if isinstance(batch, RowBatch):
            keep = logits_needed(measures, max(len(row.suffix) for row in batch.rows))
            yield (
                batch.rows,
                self.model.logits([row.prefix + row.suffix for row in batch.rows], keep),
            )
            return
        counts = [logits_needed(measures, len(row.suffix)) for row in batch.rows[0]]
        found = self.model.suffix_logits(batch.segments, batch.suffixes, counts)
        for column, logits in enumerate(found):
            yield [group[column] for group in batch.rows], logits

    def assemble(self, ranked: Sequence[Segment], question: str) -> KeyContext:
        """The key context for a question from segments, the most certain first."""

        def prompted(texts: Sequence[str]) -> list[int]:
            return [len(self.prompt(text, question)) for text in texts]

        budget = self.model.window - self.method.answer_tokens
        return KeyContext.assemble(ranked, budget, prompted)

    def prefill(self, ranked: Sequence[Segment], question: str) -> None:
        """Read the prompt that an answer from these segments would begin with, to be fast then."""
        prompt = self.prompt(self.assemble(ranked, question).text, question)
        with self._priority(prompt):
            self.model.prefill(prompt)

    def answer(
        self, context: KeyContext, question: str, on_text: Callable[[str], None] | None = None
    ) -> Generated:
        """Generate the answer to the question from the key context, greedily.

        Raises ModelError for a context without a text: the model has no numbers (NaN) for any
        segment, or the question leaves its window no room for one.
        """
        if not context.text:
            raise ModelError(
                "no segment can be read: it has no numbers for any, or the question and the answer "
                f"leave no room in its window of {self.model.window} tokens"
            )
        prompt = self.prompt(context.text, question)
        with self._priority(prompt) as claim_idle_threads:

            def hear(text: str) -> None:
                claim_idle_threads()
                if on_text:
                    on_text(text)

            text, first = self.model.generate(prompt, self.method.answer_tokens, hear)
        certain = round(-float(entropy(first[None])[0]), SCORE_DIGITS)
        if math.isnan(certain):
            raise ModelError("it has no numbers (NaN) for the first token of an answer")
        return Generated(text.strip(), certain)

    def _priority(self, prompt: Sequence[int]) -> AbstractContextManager[Callable[[], None]]:
        """Ahead of the batches; beside those under way only what needs no library to be written."""
        return self.executor.priority(len(prompt) if self.model.can_extend_cache else math.inf)

    def _prompt(self, context: str, question: str) -> list[int]:
        """Token ids of a key context's text with the question behind it, ready to be answered. As
        `prompt` it is remembered: who assembles a context counts its tokens, and then answers."""
        return self.model.prompt(context + self.render_question(question))

    def render_question(self, question: str) -> str:
        """The question in the model's wording, as it stands behind a segment or a context."""
        return self.model.template.replace("{question}", question)

    def _suffix(self, question: str) -> tuple[int, ...]:
        """The question as the ids that end every one of its rows."""
        if not question.strip():
            raise QuestionError("the question is empty")
        ids = self.model.encode([self.render_question(question)])[0]
        if len(ids) > self.method.question_tokens:
            raise QuestionError(
                f"the question takes {len(ids)} tokens with its frame, and the method leaves it "
                f"{self.method.question_tokens} of the window's {self.model.window}: "
                "shorten it, or leave more for questions"
            )
        return tuple(ids)

    def _rows(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """[BOS] segment question. Records were counted one by one; joined, the tokenizer may
        need a few more, and those at the segment's start give way."""
        texts = list(dict.fromkeys(text for text, _ in pairs))
        read = dict(zip(texts, map(tuple, self.model.encode(texts)), strict=True))
        bos, rows = tuple(self.model.bos), list[Row]()
        for i, (text, question) in enumerate(pairs):
            suffix = self.suffix(question)
            room = self.model.window - len(suffix) - len(bos)
            if len(read[text]) > room:
                self._note_shortened(len(read[text]), room)
            rows.append(Row(i, bos + read[text][-room:], suffix))
        return rows

    def _note_shortened(self, tokens: int, room: int) -> None:
        """Count a segment of which more than a few tokens are left out; say so of the first."""
        if tokens <= room + self.method.overlap_tokens + FEW:
            return
        self.shortened += 1
        if self.shortened == 1:
            logger.warning(
                "a segment of %d tokens was cut for another model: this one reads the last %d "
                "beside the question. Others like it are read so, too", tokens, room,
            )  # fmt: skip


def _write_scores(scores: dict[Measure, list[float]], rows: Sequence[Row], logits: Tensor) -> None:
    """Put the scores of rows with logits (B, P, V) in their pairs' places."""
    question = _questions(rows).to(logits.device)
    for measure, found in scores.items():
        for row, score in zip(rows, certainty(logits, question, measure).tolist(), strict=True):
            found[row.pair] = round(score, SCORE_DIGITS)


def _questions(rows: Sequence[Row]) -> Tensor:
    """The rows' questions (B, m) against the right edge. The first token of a row without a prefix
    is left out, because nothing predicts it."""
    longest = max(len(row.suffix) for row in rows)
    predicted = [row.suffix if row.prefix else row.suffix[1:] for row in rows]
    return torch.tensor([[IGNORE_INDEX] * (longest - len(ids)) + list(ids) for ids in predicted])
