"""Feeder: files, folders, standard input or a growing file -> events of the tokens topic.

Several records go into one event: that is ten times cheaper to carry than one each. On a
broker that silently drops what it has no room for, it paces itself to the consumer.
Knows files and Kafka; nothing of segments or scores.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from stream_app.events import encode
from stream_app.settings import Settings
from stream_app.store import StreamStore
from stream_app.topics import ensure_topics

CHUNK_CHARS = 16_384
# A record longer than this is sent in pieces.
LONGEST_RECORD = 4 * CHUNK_CHARS
FOLLOW_SECONDS = 0.2
# What librdkafka's mock cluster keeps of a partition is 5 MB; no more than this is ahead of
# the consumer, in all partitions together.
PACED_BYTES = 1 << 20


class Feeder:
    """Feeds streams, in chunks of whole records."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer, pace: "Pace | None") -> None:
        self.settings = settings
        self.producer = producer
        self.pace = pace
        self.sent: deque[asyncio.Future[Any]] = deque()

    async def feed(
        self, stream: str, chunks: AsyncIterator[str], on_bytes: Callable[[int], None]
    ) -> None:
        """Send the chunks, in order, and return when the broker has all of them."""
        async for text in chunks:
            value = self._encode(text)
            self.sent.append(
                await self.producer.send(
                    self.settings.tokens_topic, value=value, key=stream.encode()
                )
            )
            on_bytes(len(text.encode()))
            if self.pace:
                await self.pace.wait(await self.sent.popleft(), len(value))
            while len(self.sent) > 100:
                await self.sent.popleft()
        while self.sent:
            await self.sent.popleft()

    def _encode(self, text: str) -> bytes:
        if self.settings.format == "lines":
            return text.encode()
        field = self.settings.text_field if self.settings.format == "json" else "text"
        return encode({field: text}, as_json=self.settings.format == "json")


class Pace:
    """Keeps what is sent and not yet consumed below a bound."""

    def __init__(self, store: StreamStore, limit: int = PACED_BYTES) -> None:
        self.store = store
        self.limit = limit
        self.ahead: deque[tuple[str, int, int]] = deque()
        self.bytes = 0

    async def wait(self, sent: Any, size: int) -> None:
        """Note an event that the broker has; return when the consumer is near enough."""
        self.ahead.append((f"{sent.topic}/{sent.partition}", sent.offset, size))
        self.bytes += size
        while self.bytes > self.limit:
            partition, offset, size = self.ahead[0]
            position, _ = await self.store.position(partition)
            if position is not None and position > offset:
                self.ahead.popleft()
                self.bytes -= size
            else:
                await asyncio.sleep(FOLLOW_SECONDS)


@asynccontextmanager
async def feeding(settings: Settings, store: StreamStore) -> AsyncIterator[Feeder]:
    """A feeder on a broker that answers; paced if that is librdkafka's mock cluster."""
    cluster = await ensure_topics(settings)
    pace = Pace(store) if cluster.startswith("mock") else None
    address = settings.broker_address
    async with AIOKafkaProducer(bootstrap_servers=address, linger_ms=5) as producer:
        yield Feeder(settings, producer, pace)


async def read_file(path: Path, follow: bool = False) -> AsyncIterator[str]:
    """A file's text in chunks of whole records; `-` is standard input. follow: and what is
    written to it later, for ever, also after it was cut short or replaced."""
    file, rest = _open(path), ""
    try:
        while True:
            while text := file.read(CHUNK_CHARS):
                whole, newline, rest = (rest + text).rpartition("\n")
                if newline or len(rest) >= LONGEST_RECORD:
                    yield whole + newline if newline else rest
                    rest = rest if newline else ""
            if not follow:
                break
            await asyncio.sleep(FOLLOW_SECONDS)
            if _begun_anew(path, file):
                file.close()
                file = _open(path)
        if rest:
            yield rest
    finally:
        file.close()


def _open(path: Path) -> Any:
    """Bytes that are no UTF-8 become U+FFFD: a log may hold anything."""
    source = sys.stdin.fileno() if str(path) == "-" else path
    return open(source, encoding="utf-8", errors="replace", newline="\n")


def _begun_anew(path: Path, file: Any) -> bool:
    """Whether the name stands for another file now, or the file was cut short."""
    try:
        now = path.stat()
    except FileNotFoundError:  # between the old file and the new one
        return False
    return now.st_ino != os.fstat(file.fileno()).st_ino or now.st_size < file.tell()


def files_of(source: Path) -> list[Path]:
    """The file itself, or all files of a folder that may be read."""
    if not source.is_dir():
        return [source]
    return sorted(p for p in source.rglob("*") if p.is_file() and os.access(p, os.R_OK))
