"""Feeder: files, folders, standard input or a growing file -> events of the tokens topic.

Several records go into one event: that is ten times cheaper to carry than one each. On a
broker that silently drops what it has no room for, it paces itself to the consumer.
Knows files and Kafka; nothing of segments or scores.
"""

import asyncio
import codecs
import logging
import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from stream_app.events import encode, stream_name
from stream_app.producing import producing
from stream_app.settings import Settings
from stream_app.store import StreamStore
from stream_app.topics import ensure_topics

logger = logging.getLogger("xl3m")

CHUNK_BYTES = 16_384
# A record longer than this is sent in pieces.
LONGEST_RECORD = 65_536
FOLLOW_SECONDS = 0.2
# A file that was replaced is left this much later: whoever writes is told to use the new one.
LEAVE_SECONDS = 1.0
WORTH_SAYING = 10.0
# Events on their way to the broker, unconfirmed.
SENT_AHEAD = 100
# What librdkafka's mock cluster keeps of a partition is 5 MB; no more than this is ahead of
# the consumer, in all partitions together.
PACED_BYTES = 1 << 20


class Feeder:
    """Feeds streams, in chunks of whole records."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer, pace: "Pace | None") -> None:
        self.settings = settings
        self.producer = producer
        self.pace = pace

    async def feed(
        self, stream: str, chunks: AsyncIterator[str], on_bytes: Callable[[int], None]
    ) -> None:
        """Send the chunks, in order, and return when the broker has all of them."""
        key, sent = stream_name(stream).encode(), deque[Any]()
        topic = self.settings.tokens_topic
        async for text in chunks:
            for value in self.values(stream, text):
                sent.append(await self.producer.send(topic, value=value, key=key))
                if self.pace:
                    await self.pace.wait(await sent.popleft(), len(value))
            on_bytes(len(text.encode()))
            while len(sent) > SENT_AHEAD:
                await sent.popleft()
        while sent:
            await sent.popleft()

    def values(self, stream: str, text: str) -> list[bytes]:
        """The chunk as one event, or as several that are not too large for a worker."""
        value = self._encode(stream, text)
        if len(value) <= self.settings.max_event_bytes or len(text) < 2:
            return [value]
        middle = text.rfind("\n", 0, len(text) // 2) + 1 or len(text) // 2
        parts = text[:middle], text[middle:]
        return [value for part in parts for value in self.values(stream, part)]

    def _encode(self, stream: str, text: str) -> bytes:
        settings = self.settings
        if settings.form in ("lines", "cri"):
            return text.encode()
        if settings.form == "msgpack":
            return encode({"text": text}, as_json=False)
        named = {settings.key_field: stream} if settings.key_field else {}
        return encode({settings.text_field or "text": text} | named, as_json=True)


class Pace:
    """Keeps what is sent and not yet consumed below a bound."""

    def __init__(self, store: StreamStore, limit: int = PACED_BYTES) -> None:
        self.store = store
        self.limit = limit
        self.ahead: deque[tuple[str, int, int]] = deque()
        self.bytes = 0
        self._turn = asyncio.Lock()

    async def wait(self, sent: Any, size: int) -> None:
        """Note an event that the broker has; return when the consumer is near enough."""
        self.ahead.append((f"{sent.topic}/{sent.partition}", sent.offset, size))
        self.bytes += size
        async with self._turn:
            waited = 0.0
            while self.bytes > self.limit:
                if not await self._consumed_one():
                    await asyncio.sleep(FOLLOW_SECONDS)
                    waited += FOLLOW_SECONDS
                    if round(waited, 1) == WORTH_SAYING:
                        logger.warning("waiting for a worker to consume what was fed")

    async def _consumed_one(self) -> bool:
        """Let go of the oldest event ahead of the consumer, if it is no longer ahead."""
        partition, offset, size = self.ahead[0]
        position, _ = await self.store.position(partition)
        if position is None or position <= offset:
            return False
        self.ahead.popleft()
        self.bytes -= size
        return True


@asynccontextmanager
async def feeding(settings: Settings, store: StreamStore) -> AsyncIterator[Feeder]:
    """A feeder on a broker that answers; paced if that is librdkafka's mock cluster."""
    cluster = await ensure_topics(settings)
    pace = Pace(store) if cluster.startswith("mock") else None
    async with producing(settings, linger_ms=5) as producer:
        yield Feeder(settings, producer, pace)


async def read_file(path: Path, follow: bool = False) -> AsyncIterator[str]:
    """A file's text in chunks of whole records; `-` is standard input. Bytes that are no UTF-8
    become U+FFFD. follow: and what is written to it later, for ever, also after it was cut
    short or replaced."""
    reader, leaving = Reader(path), False
    try:
        while True:
            async for chunk in reader.chunks():
                yield chunk
            if not follow:
                break
            if leaving:  # the old file is read to its end
                if rest := reader.end():
                    yield rest
                reader.begin_anew()
            leaving = not leaving and reader.replaced()
            await asyncio.sleep(LEAVE_SECONDS if leaving else FOLLOW_SECONDS)
        if rest := reader.end():
            yield rest
    finally:
        reader.close()


class Reader:
    """Whole records out of a file that may still be written to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        self._rest = ""

    def _open(self) -> None:
        self.file = os.dup(0) if str(self.path) == "-" else os.open(self.path, os.O_RDONLY)
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    async def chunks(self) -> AsyncIterator[str]:
        """What can be read now; a record that has no end yet is kept back."""
        while data := await asyncio.to_thread(os.read, self.file, CHUNK_BYTES):
            whole, newline, self._rest = (self._rest + self.decoder.decode(data)).rpartition("\n")
            if newline:
                yield whole + newline
            if len(self._rest) >= LONGEST_RECORD:
                yield self.rest()

    def rest(self) -> str:
        """What was kept back."""
        rest, self._rest = self._rest, ""
        return rest

    def replaced(self) -> bool:
        """Whether the name stands for another file now, or the file was cut short."""
        try:
            now, ours = self.path.stat(), os.fstat(self.file)
        except FileNotFoundError:  # between the old file and the new one
            return False
        if not stat.S_ISREG(ours.st_mode):  # a pipe is never cut short
            return False
        return now.st_ino != ours.st_ino or now.st_size < os.lseek(self.file, 0, os.SEEK_CUR)

    def end(self) -> str:
        """What was kept back, when there is no more of this file: half a character at its end is
        U+FFFD too."""
        return self.rest() + self.decoder.decode(b"", final=True)

    def begin_anew(self) -> None:
        """Go on with the file that has the name now."""
        old = self.file
        self._open()  # may be refused; then the old one is still there to be closed
        os.close(old)

    def close(self) -> None:
        """Let the file go."""
        os.close(self.file)


def files_of(source: Path) -> dict[str, Path]:
    """The file itself, or all files of a folder that may be read and look like text; each by
    the stream's name, which is the file's, within the folder."""
    if not source.is_dir():
        return {"stdin" if str(source) == "-" else _name(Path(source.name)): source}
    found = sorted(path for path in source.rglob("*") if path.is_file() and _is_text(path))
    return {_name(path.relative_to(source)): path for path in found}


def _name(path: Path) -> str:
    """As text: on Linux a file may be called by any bytes."""
    return os.fsencode(path).decode(errors="replace")


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\0" not in file.read(CHUNK_BYTES)
    except OSError:
        return False
