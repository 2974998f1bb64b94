"""Fakes: events, a broker, an engine without a model, a store whose Redis fails.

The engine scores by a hash of text and question: cheap, deterministic, and with ties. The store is
the real one, except for the calls that it is configured to fail.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple, cast

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from stream_app.runtime.retry import Health
from stream_app.store.retrying import retried
from stream_app.store.store import StreamStore
from stream_app.testing import offline_scores, offline_segments, top_k
from stream_app.testing import until as until
from xl3m_core import (
    Engine,
    Generated,
    KeyContext,
    LanguageModel,
    Measure,
    Method,
    Segment,
    Tail,
)
from xl3m_core.features import Features
from xl3m_core.lexical import QuestionWords, words
from xl3m_core.scoring import Scores

WAIT_SECONDS = 20.0
PLENTY = 1 << 40

# Every example uses fresh names, so a fixture shared by all examples does no harm.
on_redis = hypothesis_settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@asynccontextmanager
async def running(*services: Any) -> AsyncIterator[None]:
    """Run the services beside the test; the test fails if one of them does."""
    tasks = [asyncio.create_task(service.run()) for service in services]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(WAIT_SECONDS):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for ended in results:
            if not isinstance(ended, asyncio.CancelledError):
                raise AssertionError("a service ended by itself") from ended


class Letters:
    """A language model without a network: one token per character."""

    window = 192
    template = "\nQ: {question}\nA:"
    answer = "free"
    fingerprint = "letters"
    bos = (0,)
    can_pad = True
    has_chat_template = False
    thread_safe = False

    def probe_rows(self, tokens: int) -> None:
        """Nothing has to be known of rows."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Code points."""
        return [[ord(letter) for letter in text] for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each character is."""
        return [(i, i + 1) for i in range(len(text))]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Characters."""
        return [len(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The characters of code points."""
        return "".join(map(chr, ids))

    def decode_fragment(self, ids: Sequence[int]) -> str:
        """The characters of code points, as a part of a text."""
        return self.decode(ids)

    def prompt(self, text: str) -> list[int]:
        """The text's tokens, without a chat template."""
        return self.encode([text])[0]


class HashEngine(Engine):
    """Scores by a hash; answers with the number of segments in the context. A batch has
    `batch_segments` segments with the question `q?`."""

    def __init__(self, k: int = 3, segment_tokens: int = 12, batch_segments: int = 8) -> None:
        method = Method.fit(
            Letters.window,
            segment_tokens=segment_tokens,
            overlap_tokens=segment_tokens // 4,
            question_tokens=40,
            k=k,
        )
        tokens = batch_segments * (method.segment_tokens + len("\nQ: q?\nA:"))
        super().__init__(cast(LanguageModel, Letters()), method, tokens)
        self.words = lru_cache(equal_weights)
        self.scored: list[tuple[str, str]] = []

    def features(
        self, pairs: Sequence[tuple[str, str]], measures: Collection[Measure] = ()
    ) -> list[Features]:
        self.scored += pairs
        for _, question in pairs:
            self.suffix(question)
        return [Features(-hash_score(text, question)) for text, question in pairs]

    def timed_features(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """`features`, with a duration of zero."""
        return Scores(self.features(pairs), 0.0)

    def answer(
        self, context: KeyContext, question: str, on_text: Callable[[str], None] | None = None
    ) -> Generated:
        pieces = [f"{question} ", f"{len(context.segments)} ", "segments"]
        for piece in pieces if on_text else []:
            on_text(piece)  # type: ignore[misc]
        return Generated("".join(pieces), -0.5)


def equal_weights(question: str) -> QuestionWords:
    """The question's words, each as weighty as the others."""
    return QuestionWords(dict.fromkeys(words(question), 1.0))


def hash_score(text: str, question: str) -> float:
    """One of 64 values that float32 holds exactly, so that ties are common."""
    return -(blake2b(f"{text}\0{question}".encode()).digest()[0] % 64) / 64


def batch(engine: Engine, text: str) -> tuple[Tail, list[Segment]]:
    """The tail and the segments of a text that came in one event."""
    return offline_segments(engine, text)


def best(engine: Engine, segments: Sequence[Segment], question: str) -> list[tuple[int, float]]:
    """The top-k of segments scored in one batch."""
    return top_k(engine, segments, offline_scores(engine, segments, question))


NOW = time.time()


class Message(NamedTuple):
    """A Kafka record; timestamp in seconds from Faust, in milliseconds if polled around it."""

    topic: str
    partition: int
    offset: int
    timestamp: float | None
    key: bytes | None
    value: Any
    headers: Any = ()


@dataclass(eq=False)
class Event:
    """An event that records its acknowledgement."""

    message: Message
    acked: "list[Event]" = field(default_factory=list, repr=False)

    def ack(self) -> bool:
        """Record the acknowledgement."""
        assert self not in self.acked, "acknowledged twice"
        self.acked.append(self)
        return True


async def coming(events: Sequence[Event]) -> AsyncIterator[Event]:
    """The events as a Faust stream."""
    for event in events:
        yield event


def poll(events: Sequence[Event]) -> Event:
    """The bundle that an agent gets of one poll."""
    messages = [event.message for event in events]
    return Event(messages[-1]._replace(value=messages), events[-1].acked)


class TP(NamedTuple):
    """A topic and partition, as Faust names them."""

    topic: str
    partition: int


@dataclass
class FakeBroker:
    """Committed offsets and ends of partitions; records the calls."""

    committed: dict[TP, int] = field(default_factory=dict)
    ends: dict[TP, int] = field(default_factory=dict)
    commits: list[dict[TP, int]] = field(default_factory=list)
    begins: dict[TP, int] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    async def topic_ids(self, names: Any) -> Mapping[str, str]:
        """The ids given to the constructor."""
        return {name: self.ids[name] for name in names if name in self.ids}

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """The group's offsets."""
        return self.committed

    async def earliest_offsets(self, *partitions: Any) -> Mapping[Any, int]:
        """The first offsets; 0 by default."""
        return {tp: self.begins.get(tp, 0) for tp in partitions}

    async def highwaters(self, *partitions: Any) -> Mapping[Any, int]:
        """The ends."""
        return {tp: self.ends[tp] for tp in partitions if tp in self.ends}

    async def offsets_at(self, start: Any, *partitions: Any) -> Mapping[Any, int]:
        """The ends for "latest"; half of them for a time."""
        return {tp: self.ends[tp] // (1 if start == "latest" else 2) for tp in partitions}

    async def commit_offsets(self, offsets: Mapping[Any, int]) -> bool:
        self.commits.append(dict(offsets))
        self.committed |= offsets
        return True


class FailingStore(StreamStore):
    """A retrying store whose connection breaks `before` or `after` a call takes effect, the given
    number of times."""

    def __init__(self, redis: Redis, before: int = 0, after: int = 0) -> None:
        super().__init__(redis, health=Health())
        self.before, self.after = before, after
        self.on_failure: Callable[[], None] = lambda: None

    @retried
    async def commit(self, commits: Any, trusted: str = "") -> Any:
        return await self._failing(super().commit, commits, trusted)

    @retried
    async def extend_range(self, extensions: Any, k: int) -> Any:
        return await self._failing(super().extend_range, extensions, k)

    async def _failing(self, call: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        if self.before:
            self.before -= 1
            self.on_failure()
            raise RedisConnectionError("broken before")
        done = await call(*args)
        if self.after:
            self.after -= 1
            self.on_failure()
            raise RedisConnectionError("broken after")
        return done
