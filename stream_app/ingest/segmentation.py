"""Segmentation: the segment size and tokenizer that a stream's log was cut with.

A stream's cursor holds it as one number for each index where it changes. So a worker with another
model can warn of segments that do not fit, without reading them.
"""

import logging
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

from stream_app.store.state import Cursor
from stream_app.store.store import StreamStore
from xl3m_core import Engine, Method

logger = logging.getLogger("xl3m")

# Tokenizers that encode this sample equally are taken to be equal.
SAMPLE = "2026-11-30 10:00:01,456 ERROR [pool-1] Größe=0x1F 注文 8812\n\tat a.b.C(D.java:7)\n"
STREAMS_PER_READ = 500
MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class Segmentation:
    """segment_tokens: the largest segment; tokenizer: a digest of the tokenizer."""

    segment_tokens: int
    tokenizer: int

    @classmethod
    def of_engine(cls, engine: Engine) -> Self:
        """The segmentation of an engine."""
        ids = engine.model.encode([SAMPLE])[0]
        digest = blake2b(repr([*ids]).encode(), digest_size=4).digest()
        return cls(engine.method.segment_tokens, int.from_bytes(digest))

    @classmethod
    def from_number(cls, number: int) -> Self:
        """The inverse of `number`."""
        return cls(number >> 32, number & 0xFFFF_FFFF)

    @property
    def number(self) -> int:
        """Both values as one number, for the cursor."""
        return self.segment_tokens << 32 | self.tokenizer


def retained(cursor: Cursor) -> set[Segmentation]:
    """The segmentations of the segments that are still in the log."""
    begins = sorted(cursor.cuts)
    ends = [*begins, math.inf][1:]
    return {
        Segmentation.from_number(cursor.cuts[begin])
        for begin, end in zip(begins, ends, strict=True)
        if end > cursor.first
    }


def differences(cursors: Mapping[str, Cursor], method: Method, ours: Segmentation) -> Iterator[str]:
    """Warnings, one for each segmentation, about streams whose segments are too long for this
    method's model or were cut with another tokenizer."""
    kinds = defaultdict[Segmentation, list[str]](list)
    for stream, cursor in cursors.items():
        for cut in retained(cursor):
            kinds[cut].append(stream)
    for cut, streams in sorted(kinds.items(), key=lambda kind: -kind[0].segment_tokens):
        if difference := _difference(cut, method, ours):
            named = ", ".join(map(repr, streams[:MAX_NAMED])) + (
                ", …" if streams[MAX_NAMED:] else ""
            )
            yield f"{_count(len(streams))} ({named}) {difference}"


def _difference(cut: Segmentation, method: Method, ours: Segmentation) -> str:
    room = method.window - 1 - method.question_tokens - method.answer_tokens
    if cut.segment_tokens > room:
        return (
            f"hold segments of {cut.segment_tokens} tokens, but this model reads {room} beside a "
            "question and its answer: of longer ones only the end is read. `xl3m rebuild` cuts "
            "them again"
        )
    if cut.tokenizer != ours.tokenizer:
        return (
            "hold segments cut with another model's tokenizer: they may have more tokens in this "
            "model's. `xl3m rebuild` cuts them again"
        )
    return ""


def _count(streams: int) -> str:
    return "1 stream" if streams == 1 else f"{streams} streams"


async def mismatches(store: StreamStore, engine: Engine) -> list[str]:
    """The `differences` of all streams."""
    cursors = {name: cursor async for name, cursor in _cursors(store)}
    return [*differences(cursors, engine.method, Segmentation.of_engine(engine))]


async def _cursors(store: StreamStore) -> AsyncIterator[tuple[str, Cursor]]:
    names = await store.streams()
    for some in (
        names[at : at + STREAMS_PER_READ] for at in range(0, len(names), STREAMS_PER_READ)
    ):
        for name, cursor in zip(some, await store.cursors(some), strict=True):
            yield name, cursor


class SegmentationCheck:
    """Logs at the start of a worker which streams were cut for another model."""

    def __init__(self, engine: Engine, store: StreamStore) -> None:
        self.engine = engine
        self.store = store

    async def run(self) -> None:
        """Check once."""
        for mismatch in await mismatches(self.store, self.engine):
            logger.warning("%s", mismatch)
