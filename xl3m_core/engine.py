"""Engine: score segments against questions, answer from a key context.
XL3M: the whole method on one text.

Knows the model and the method's numbers; not where the text comes from or where scores go.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from xl3m_core.answer import Answer, Evidence
from xl3m_core.context import KeyContext
from xl3m_core.errors import MethodError, QuestionError
from xl3m_core.loading import SMALL
from xl3m_core.measure import IGNORE, certainty, entropy, positions
from xl3m_core.method import Method
from xl3m_core.model import LanguageModel
from xl3m_core.segment import Segment, Segmenter, Tail
from xl3m_core.topk import TopK

# Rows go through the model in batches of this many tokens, padding counted. Measured on two
# cores: larger batches are no faster, and a query that comes meanwhile waits for the batch.
BATCH_TOKENS = 4096
SCORE_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer's text, and minus the entropy of its first token in nats."""

    text: str
    certainty: float


class Engine:
    """A model at work by a method. One thread at a time."""

    def __init__(
        self, model: LanguageModel, method: Method | None = None, batch_tokens: int = BATCH_TOKENS
    ) -> None:
        self.model = model
        self.method = method or Method.fit(model.window)
        if self.method.window > model.window:
            raise MethodError(
                f"the method is for a window of {self.method.window} tokens, "
                f"but the model's is {model.window}"
            )
        self._check_frame()
        self.batch_tokens = batch_tokens
        self.suffix = lru_cache(maxsize=4096)(self._suffix)

    def _check_frame(self) -> None:
        """A chat template takes its part of the window too: a segment must fit beside it."""
        if not self.model.chats:
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
        return Segmenter(self.model.count, self.method.segment_tokens, self.method.overlap_tokens)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The certainty of each (segment text, question) pair, in nats; see `measure.certainty`.

        Rounded to 1e-4: a finer difference comes from the rows that shared a batch, and would
        decide between segments that say the same. Equal ones are told apart by their place.

        Raises QuestionError for a question that is empty or too long.
        """
        rows = [self._row(text, question) for text, question in pairs]
        scores = [0.0] * len(rows)
        for batch in self._batches([len(row) for row in rows]):
            suffixes = [self.suffix(pairs[i][1]) for i in batch]
            for i, score in zip(batch, self._certainty(rows, batch, suffixes), strict=True):
                scores[i] = round(score, SCORE_DIGITS)
        return scores

    def assemble(self, ranked: Sequence[Segment], question: str) -> KeyContext:
        """The key context for a question from segments, the most certain first."""

        def prompted(texts: Sequence[str]) -> list[int]:
            return [len(self._prompt(text, question)) for text in texts]

        budget = self.model.window - self.method.answer_tokens
        return KeyContext.assemble(ranked, budget, prompted)

    def answer(
        self, context: KeyContext, question: str, on_text: Callable[[str], None] | None = None
    ) -> Generated:
        """Generate the answer to the question from the key context, greedily."""
        prompt = self._prompt(context.text, question)
        text, first = self.model.generate(prompt, self.method.answer_tokens, on_text)
        return Generated(text.strip(), -float(entropy(first[None])[0]))

    def _prompt(self, context: str, question: str) -> list[int]:
        return self.model.prompt(context + self._ask(question))

    def _ask(self, question: str) -> str:
        return self.model.template.replace("{question}", question)

    def _suffix(self, question: str) -> tuple[int, ...]:
        """The question as the ids that end every one of its rows."""
        if not question.strip():
            raise QuestionError("the question is empty")
        ids = self.model.encode([self._ask(question)])[0]
        if len(ids) > self.method.question_tokens:
            raise QuestionError(
                f"the question takes {len(ids)} tokens with its frame, and the method leaves it "
                f"{self.method.question_tokens} of the window's {self.model.window}: "
                "shorten it, or leave more for questions"
            )
        return tuple(ids)

    def _row(self, text: str, question: str) -> list[int]:
        """[BOS] segment question. Records were counted one by one; joined, the tokenizer may
        need a few more, and those at the segment's start give way."""
        suffix = self.suffix(question)
        room = self.model.window - len(suffix) - len(self.model.bos)
        return [*self.model.bos, *self.model.encode([text])[0][-room:], *suffix]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows by length, in batches within the token budget; of one length if need be."""
        batch: list[int] = []
        for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
            full = batch and (len(batch) + 1) * lengths[batch[0]] > self.batch_tokens
            odd = batch and not self.model.pads and lengths[i] != lengths[batch[0]]
            if full or odd:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _certainty(
        self, rows: list[list[int]], batch: list[int], suffixes: list[tuple[int, ...]]
    ) -> list[float]:
        """One batch through the model."""
        longest = max(map(len, suffixes))
        keep = positions(self.method.measure, longest)
        logits = self.model.logits([rows[i] for i in batch], keep)
        asked = [_asked(rows[i], suffix) for i, suffix in zip(batch, suffixes, strict=True)]
        padded = [[IGNORE] * (longest - len(ids)) + list(ids) for ids in asked]
        question = torch.tensor(padded, device=logits.device)
        scores: list[float] = certainty(logits, question, self.method.measure).tolist()
        return scores


class XL3M:
    """The whole method on one text of any length, at hand or still being read."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def load(
        cls, name: str | Path | None = None, *, window: int | None = None, **method: Any
    ) -> "XL3M":
        """Load a model (a folder, a hub id, or the small one that comes with this package).

        window: for a model that does not say how long its own is. method: what `Method.fit`
        takes, to change its defaults.
        """
        model = LanguageModel.load(name or SMALL, window=window)
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

        Memory holds the k best segments and a few batches, however long the text. on_progress is
        given the number of tokens scored so far; on_text the answer as it is generated.
        """
        started = time.perf_counter()
        self.engine.suffix(question)  # refused before a long text is read
        best, total = self._scan(_chunks(text), question, on_progress)
        scanned = time.perf_counter()
        if not total:
            return Answer(question=question, error="the text is empty")
        context = self.engine.assemble([segment for segment, _ in best], question)
        generated = self.engine.answer(context, question, on_text)
        scores = {segment.index: score for segment, score in best}
        return Answer(
            question=question,
            answer=generated.text,
            certainty=generated.certainty,
            coverage=1.0,
            evidence=tuple(Evidence.of("", s, scores[s.index]) for s in context.segments),
            timings={"scan": scanned - started, "answer": time.perf_counter() - scanned},
        )

    def _scan(
        self, chunks: Iterable[str], question: str, on_progress: Callable[[int], None] | None
    ) -> tuple[list[tuple[Segment, float]], int]:
        """The k most certain segments with their scores, and how many there were in all."""
        top, kept, total = TopK(self.engine.method.k), dict[int, Segment](), 0
        for batch in self._segments(chunks):
            scores = self.engine.score([(segment.text, question) for segment in batch])
            for segment, score in zip(batch, scores, strict=True):
                kept[segment.index] = segment
                kept.pop(top.add(segment.index, score), None)  # type: ignore[arg-type]
            total += len(batch)
            if on_progress:
                on_progress(batch[-1].end_token)
        return [(kept[index], score) for index, score in top.best()], total

    def _segments(self, chunks: Iterable[str]) -> Iterator[list[Segment]]:
        """The text's segments, some batches' worth at a time so that lengths sort well."""
        segmenter, tail, pending = self.engine.segmenter(), Tail(), list[Segment]()
        for chunk in chunks:
            tail, new = segmenter.push(tail, chunk)
            pending += new
            if sum(segment.tokens for segment in pending) >= 4 * self.engine.batch_tokens:
                yield pending
                pending = []
        pending += segmenter.flush(tail)
        if pending:
            yield pending


def _asked(row: list[int], suffix: tuple[int, ...]) -> tuple[int, ...]:
    """What of the question something stands before: all of it, but in a row of nothing else."""
    return suffix[1:] if len(row) == len(suffix) else suffix


def _chunks(text: str | Iterable[str], size: int = 1 << 16) -> Iterator[str]:
    """The text in pieces of a bounded size, so that no more than one is in work at a time."""
    for chunk in [text] if isinstance(text, str) else text:
        yield from (chunk[start : start + size] for start in range(0, len(chunk), size))
