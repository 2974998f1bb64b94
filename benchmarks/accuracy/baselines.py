"""The alternatives to XL3M, and XL3M itself, behind one interface: read a text, then answer.

All have the same model, question wording and greedy decoding. Those that choose segments have the
same segments, the same number of them and the same prompt, and differ in the ranking alone.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Protocol

from benchmarks.accuracy.embedding_baseline import PACKAGE, Embedding
from benchmarks.accuracy.kv_baselines import CHUNK, CachedText, extend, frame
from stream_app.scoring.bm25 import Bm25
from xl3m_core import Engine, KeyContext, Measure, Segment, TopK
from xl3m_core.method import MEASURES
from xl3m_core.xl3m import RunningTopK

READ_CHUNK = 256
"""Tokens per forward pass of a baseline that keeps the whole text; bounds the activations."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the text the model saw (None: all of it)."""

    answer: str
    seen: str | None


class Peer(Protocol):
    """Reads a text once, and then answers."""

    def read(self, text: Iterable[str], questions: Sequence[str]) -> None:
        """Read the text. The questions are known from the start; not every peer uses them."""

    def ask(self, question: str) -> Reply:
        """Answer one of the questions."""


class Ranking(Protocol):
    """An index of texts."""

    def ranked(self, question: str, k: int) -> list[int]:
        """The k best texts, the best first."""


class LastWindow:
    """Keeps as many of the last lines as fit one prompt."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.lines = engine, list[str]()

    def read(self, text: Iterable[str], questions: Sequence[str]) -> None:
        """Read the text, and keep only lines that can still be in the last window."""
        for chunk in text:
            lines = self.lines + chunk.splitlines(keepends=True)
            self.lines = self._last(lines, self.engine.model.window)

    def ask(self, question: str) -> Reply:
        """The longest end of the text that leaves room for question and answer."""
        model, rendered = self.engine.model, self.engine.render_question(question)
        room = model.window - self.engine.method.answer_tokens
        lines = self._last(self.lines, room)
        while lines and len(model.prompt("".join(lines) + rendered)) > room:
            lines = lines[1:]
        seen = "".join(lines)
        return Reply(self.engine.answer(KeyContext((), seen), question).text, seen)

    def _last(self, lines: list[str], tokens: int) -> list[str]:
        kept = len(lines)
        for count in reversed(self.engine.model.count_tokens(lines)):
            tokens -= count
            if tokens < 0:
                break
            kept -= 1
        return lines[kept:]


class Cached:
    """Reads the text into the model's cache: a window's worth of it, or all."""

    def __init__(
        self, engine: Engine, size: int | None, rope: str = "default", most: int = 0
    ) -> None:
        """most: the number of tokens that RoPE is rescaled for."""
        self.engine = engine
        if rope != "default":
            extend(engine.model, rope, most)
        self.head, self.foot = frame(engine.model)
        chunk = READ_CHUNK if size is None else min(CHUNK, size // 8)
        self.text = CachedText(engine.model, size, chunk=chunk)

    def read(self, text: Iterable[str], questions: Sequence[str]) -> None:
        """The prompt up to the question."""
        self.text.read(self._prompt(text))

    def _prompt(self, text: Iterable[str]) -> Iterator[int]:
        yield from self.head
        for chunk in text:
            yield from self.engine.model.encode([chunk])[0]

    def ask(self, question: str) -> Reply:
        """The rest of the prompt, and the answer."""
        model, rendered = self.engine.model, self.engine.render_question(question)
        rest = [*model.encode([rendered])[0], *self.foot]
        answer, kept = self.text.answer(rest, self.engine.method.answer_tokens)
        return Reply(answer, None if self.text.size is None else model.decode_fragment(kept))


class Rag:
    """Ranks all segments for a question, and answers from the k best."""

    def __init__(self, engine: Engine, index: Callable[[Sequence[str]], Ranking]) -> None:
        self.engine, self.index = engine, index

    def read(self, text: Iterable[str], questions: Sequence[str]) -> None:
        """Cut the text as XL3M does, and index the segments."""
        self.segments = [segment for batch in segments(self.engine, text) for segment in batch]
        self.ranking = self.index([segment.text for segment in self.segments])

    def ask(self, question: str) -> Reply:
        """The same prompt as XL3M's."""
        best = self.ranking.ranked(question, self.engine.method.k)
        return reply(self.engine, [self.segments[i] for i in best], question)


class Standing:
    """XL3M: scores each segment for every standing question while reading, and keeps the k best
    for each. No other text is kept."""

    def __init__(self, engine: Engine, measure: Measure) -> None:
        method = replace(engine.method, measure=measure)
        self.engine = Engine(engine.model, method, engine.batch_tokens)

    def read(self, text: Iterable[str], questions: Sequence[str]) -> None:
        """Score all of the text for all questions."""
        self.best = {question: RunningTopK(TopK(self.engine.method.k)) for question in questions}
        for batch in segments(self.engine, text):
            pairs = [(segment, question) for segment in batch for question in questions]
            scores = self.engine.score([(segment.text, question) for segment, question in pairs])
            for (segment, question), score in zip(pairs, scores, strict=True):
                smooths = self.engine.is_smoothed(segment.text)
                self.best[question].add(segment, score, smooths)

    def ask(self, question: str) -> Reply:
        """Answer from the running top-k."""
        best = [segment for segment, _ in self.best[question].ranked()]
        return reply(self.engine, best, question)


def segments(engine: Engine, text: Iterable[str]) -> Iterator[list[Segment]]:
    """The text's segments, in batches of one forward pass."""
    return engine.segmenter().batches(text, engine.batch_tokens)


def reply(engine: Engine, ranked: Sequence[Segment], question: str) -> Reply:
    """The answer from the best segments that fit the prompt."""
    context = engine.assemble(ranked, question)
    return Reply(engine.answer(context, question).text, context.text)


def _whole(rope: str) -> Callable[[Engine, int], Peer]:
    return lambda engine, tokens: Cached(engine, None, rope, tokens)


PEERS: dict[str, Callable[[Engine, int], Peer]] = {
    "last_window": lambda engine, tokens: LastWindow(engine),
    "streaming_llm": lambda engine, tokens: Cached(engine, engine.model.window),
    "extrapolated": _whole("default"),
    "dynamic_ntk": _whole("dynamic"),
    "yarn": _whole("yarn"),
    "bm25_rag": lambda engine, tokens: Rag(engine, Bm25),
    "embedding_rag": lambda engine, tokens: Rag(engine, Embedding(engine.model.model.device).index),
}
"""Constructors by name: (engine, tokens of the text with question and answer) -> peer."""
PEERS |= {
    f"xl3m_{measure}": lambda engine, tokens, measure=measure: Standing(engine, measure)  # type: ignore[misc]
    for measure in MEASURES
}

WHOLE_INPUT = ("extrapolated", "dynamic_ntk", "yarn")
"""Peers whose memory, and time per token, grow with the text."""


def available() -> list[str]:
    """The peers that can run here. Prints to stderr which cannot, and why."""
    if find_spec(PACKAGE):
        return list(PEERS)
    print(f"peers: embedding_rag is left out: {PACKAGE} is not installed", file=sys.stderr)
    return [name for name in PEERS if name != "embedding_rag"]
