"""Engine: score segments against questions, answer from a key context.

Knows the model and the method's numbers; not where the text comes from or where scores go.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain

import torch
from torch import Tensor

from xl3m_core.context import KeyContext
from xl3m_core.errors import MethodError, ModelError, QuestionError
from xl3m_core.inference.batching import Row, batches, common_prefix, group_by_segment
from xl3m_core.inference.executor import Job, ModelExecutor
from xl3m_core.inference.model import LanguageModel
from xl3m_core.inference.shared_prefix import MAX_BRANCHES
from xl3m_core.measure import IGNORE_INDEX, certainty, entropy, logits_needed
from xl3m_core.method import Measure, Method
from xl3m_core.segment import Segment, Segmenter

# Rows go through the model in batches of this many tokens, padding counted. Measured on two
# cores: larger batches are no faster, and smaller ones slower.
BATCH_TOKENS = 4096
SCORE_DIGITS = 4  # finer differences come from what was read beside a row, or before

FEW = 8  # tokens more than were counted, line by line, that are no sign of another model

logger = logging.getLogger("xl3m")

Scored = tuple[list[Row], Tensor]  # rows, and the logits they are scored by
Read = Callable[[], Iterator[Scored]]
Begun = Callable[[], tuple[list[float], float]]  # waits; the scores, and the seconds it took


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
        decide between segments that say the same. Equal ones are told apart by their place.

        Raises QuestionError for a question that is empty or too long.
        """
        return self.scores(pairs, [self.method.measure])[self.method.measure]

    def scores(
        self, pairs: Sequence[tuple[str, str]], measures: Sequence[Measure]
    ) -> dict[Measure, list[float]]:
        """`score` by several measures at once.

        Pairs of one text with several questions cost little more than the longest of them: the
        segment goes through the model once.
        """
        rows = self._rows(pairs)
        scores = {measure: [0.0] * len(rows) for measure in measures}
        self._start(rows, scores, at_once=len(rows) <= self.executor.workers).end()
        return scores

    def begin(self, pairs: Sequence[tuple[str, str]]) -> Begun:
        """Begin to `score`; returns when all is being read, so that the cores that have nothing
        left of it go on with what is begun next. What it returns waits for the end."""
        rows, measure = self._rows(pairs), self.method.measure
        scores = {measure: [0.0] * len(rows)}
        run = self._start(rows, scores, at_once=len(rows) < self.executor.workers)

        def end() -> tuple[list[float], float]:
            run.end()
            return scores[measure], run.seconds

        return end

    def _start(
        self, rows: Sequence[Row], scores: dict[Measure, list[float]], at_once: bool = False
    ) -> Job[None]:
        """Have the lanes read the rows, and put the scores in place. at_once: in one call, which
        goes ahead of those that wait, and has all threads or goes beside those under way."""
        room = max(1, self.batch_tokens // 2)
        shared, single = group_by_segment(rows, room) if self.model.can_share_prefix else ([], rows)
        budget = self.batch_tokens if at_once else None
        reads, tokens = self._batches(single, shared, list(scores), budget)
        together = [reads] if at_once and reads else [[read] for read in reads]
        calls = [partial(self._write_scores, scores, some) for some in together]
        return self.executor.start(calls, tokens // max(1, len(calls)))

    def _batches(
        self,
        single: Sequence[Row],
        shared: Sequence[list[list[Row]]],
        measures: Sequence[Measure],
        budget: int | None,
    ) -> tuple[list[Read], int]:
        """What is to be read, batch by batch: the rows on their own, and those that share; and how
        many tokens that is."""
        alone, alike = [*map(len, single)], [*map(_lengths, shared)]
        lengths = [*alone, *chain.from_iterable(alike)]
        budget = budget or self.budget(lengths)
        even = not self.model.can_pad
        reads: list[Read] = [
            partial(self._score_rows, [single[i] for i in chosen], measures)
            for chosen in batches(alone, budget, even=even)
        ]
        reads += [
            partial(self._score_shared, [groups[i] for i in chosen], measures)
            for groups, sizes in zip(shared, alike, strict=True)
            for chosen in batches(sizes, budget)
        ]
        return reads, sum(lengths)

    def budget(self, lengths: Sequence[int]) -> int:
        """How many tokens a batch of rows of these lengths has: with several lanes as many batches
        for each, which may be larger by a quarter so that they are not one more."""
        lanes, tokens = self.executor.workers, sum(lengths)
        if lanes == 1 or not lengths:
            return self.batch_tokens
        most, row = self.batch_tokens * 5 // 4, max(lengths)
        count = lanes * math.ceil(tokens / (lanes * max(1, most - row)))
        budget = tokens // count + row
        while budget < most and len([*batches(lengths, budget)]) > count:
            budget += row  # in each one more, before a few are left over
        return min(most, budget)

    def _write_scores(self, scores: dict[Measure, list[float]], reads: Sequence[Read]) -> None:
        """Read batches, and put each pair's scores in place."""
        for batch, logits in chain.from_iterable(read() for read in reads):
            question = _questions(batch).to(logits.device)
            for measure, found in scores.items():
                certain = certainty(logits, question, measure).tolist()
                for row, score in zip(batch, certain, strict=True):
                    found[row.pair] = round(score, SCORE_DIGITS)

    def assemble(self, ranked: Sequence[Segment], question: str) -> KeyContext:
        """The key context for a question from segments, the most certain first."""

        def prompted(texts: Sequence[str]) -> list[int]:
            return [len(self.prompt(text, question)) for text in texts]

        budget = self.model.window - self.method.answer_tokens
        return KeyContext.assemble(ranked, budget, prompted)

    def prefill(self, ranked: Sequence[Segment], question: str) -> None:
        """Read the prompt that an answer from these segments would begin with, to be fast then."""
        prompt = self.prompt(self.assemble(ranked, question).text, question)
        with self._ahead(prompt):
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
        with self._ahead(prompt) as settle:

            def hear(text: str) -> None:
                settle()
                if on_text:
                    on_text(text)

            text, first = self.model.generate(prompt, self.method.answer_tokens, hear)
        certain = round(-float(entropy(first[None])[0]), SCORE_DIGITS)
        if math.isnan(certain):
            raise ModelError("it has no numbers (NaN) for the first token of an answer")
        return Generated(text.strip(), certain)

    def _ahead(self, prompt: Sequence[int]) -> AbstractContextManager[Callable[[], None]]:
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

    def _score_rows(self, batch: list[Row], measures: Sequence[Measure]) -> Iterator[Scored]:
        """Rows, each on its own, and their logits."""
        keep = logits_needed(measures, max(len(row.suffix) for row in batch))
        yield batch, self.model.logits([row.prefix + row.suffix for row in batch], keep)

    def _score_shared(
        self, groups: list[list[Row]], measures: Sequence[Measure]
    ) -> Iterator[Scored]:
        """Rows with one question each, their segment read once for all that is asked of it."""
        suffixes = [row.suffix for row in groups[0]]
        start = common_prefix(suffixes)
        ends = [suffix[len(start) :] for suffix in suffixes]
        keep = [logits_needed(measures, len(suffix)) for suffix in suffixes]
        rows = [group[0].prefix + start for group in groups]
        for end, logits in enumerate(self.model.suffix_logits(rows, ends, keep)):
            yield [group[end] for group in groups], logits


def _lengths(groups: Sequence[list[Row]]) -> list[int]:
    """Tokens that are read at once of each group of rows, all of which ask the same."""
    suffixes = [row.suffix for row in groups[0]]
    start = len(common_prefix(suffixes))
    asked = min(sum(len(suffix) - start for suffix in suffixes), MAX_BRANCHES)
    return [len(group[0].prefix) + start + asked for group in groups]


def _questions(batch: Sequence[Row]) -> Tensor:
    """The rows' questions against the right edge (B, m): of each what something stands before,
    which is all of it, but in a row of nothing else."""
    longest = max(len(row.suffix) for row in batch)
    asked = [row.suffix if row.prefix else row.suffix[1:] for row in batch]
    return torch.tensor([[IGNORE_INDEX] * (longest - len(ids)) + list(ids) for ids in asked])
