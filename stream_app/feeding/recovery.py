"""Recovery: what a feeder that was killed had sent, found in Kafka by the headers of its events.

Between Kafka's confirmation and the position file lies a moment in which a feeder may die. Each
event therefore says which bytes of which file it holds. Knows Kafka and positions; no file.
"""

import asyncio
import logging
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_app.errors import SettingsError, UnreachableError
from stream_app.feeding.checkpoints import Checkpoint, Checkpoints
from stream_app.feeding.chunking import Chunk
from stream_app.feeding.fingerprint import FingerprintHash, format_hash, parse_hash
from stream_app.kafka import auth
from stream_app.kafka.topics import REQUEST_SECONDS, partition_counts
from stream_app.settings import Settings

logger = logging.getLogger("xl3m")

HEADER = "xl3m-feed"
# What a killed feeder's system still delivers has arrived by then.
SETTLE_SECONDS = 1.0
_POLL_MS = 500


def checkpoint_header(piece: Chunk, note: FingerprintHash) -> tuple[str, bytes]:
    """Which bytes of which file an event holds, and the marks of all up to them."""
    entry: Checkpoint = piece.source
    marks = "" if entry.archive else f":{format_hash(note)}"
    return HEADER, f"{entry.id}:{piece.start}:{piece.end}{marks}".encode()


def apply_header(book: Checkpoints, value: bytes) -> None:
    """What an event with this header says of an entry; nothing, if somebody else made it up."""
    name, *words = value.decode("ascii", "replace").split(":")
    entry = book.entries.get(name)
    try:
        end = int(words[1])
        if entry and end > entry.sent:
            entry.sent_hash = entry.sent_hash if entry.archive else parse_hash(end, words[2:])
            entry.sent = end
    except (ValueError, IndexError):
        logger.warning("a header %s is none of xl3m's: passed over", HEADER)


async def recover(settings: Settings, book: Checkpoints, cluster: str) -> None:
    """Bring the book up to what the topic holds. Raises SettingsError if its positions are of
    another topic or cluster, UnreachableError if the broker does not answer."""
    origin = {"topic": settings.tokens_topic, "cluster": cluster}
    if book.origin and book.origin != origin:
        was = " of cluster ".join(str(each) for each in book.origin.values())
        raise SettingsError(
            f"the positions are of topic {was}, not of {settings.tokens_topic} of cluster "
            f"{cluster}: name another --positions file"
        )
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            scan = _Scan(settings, book, await _partitions(settings))
        await scan.run(first=not book.origin)
    except (KafkaError, TimeoutError) as error:
        raise UnreachableError(
            f"the broker at {settings.broker_address} does not say what {settings.tokens_topic} "
            f"holds ({type(error).__name__}): try again"
        ) from error
    book.origin = origin
    book.save()


async def end_offsets(settings: Settings) -> dict[str, int]:
    """The offset that comes next in each partition of the topic."""
    partitions = await _partitions(settings)
    async with AIOKafkaConsumer(**auth.kafka(settings)) as consumer:
        found = await consumer.end_offsets(partitions)
    return {f"{tp.topic}/{tp.partition}": offset for tp, offset in found.items()}


async def _partitions(settings: Settings) -> list[TopicPartition]:
    count = (await partition_counts(settings)).get(settings.tokens_topic, 0)
    return [TopicPartition(settings.tokens_topic, number) for number in range(count)]


class _Scan:
    def __init__(
        self, settings: Settings, book: Checkpoints, partitions: list[TopicPartition]
    ) -> None:
        self.book = book
        self.partitions = partitions
        self.options = auth.kafka(settings)

    async def run(self, first: bool) -> None:
        """Read all partitions from where the book ends; a new book begins at their ends."""
        options = dict(self.options, enable_auto_commit=False, auto_offset_reset="earliest")
        async with AIOKafkaConsumer(**options) as consumer:
            if not first and not self.book.clean:
                await asyncio.sleep(SETTLE_SECONDS)
            last = await consumer.end_offsets(self.partitions)
            start = await consumer.beginning_offsets(self.partitions)
            for tp in self.partitions:
                name = f"{tp.topic}/{tp.partition}"
                noted = last[tp] if first else self.book.next_offsets.get(name, 0)
                begin = max(noted, start[tp]) if noted <= last[tp] else start[tp]
                await self._read(consumer, tp, begin, last[tp])
                self.book.next_offsets[name] = last[tp]

    async def _read(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, begin: int, end: int
    ) -> None:
        if begin >= end:
            return
        consumer.assign([tp])
        consumer.seek(tp, begin)
        skip = 1
        while (at := await consumer.position(tp)) < end:
            try:
                records = await consumer.getmany(tp, timeout_ms=_POLL_MS)
            except (UnicodeError, ValueError, KafkaError) as error:
                if getattr(error, "retriable", False):
                    raise
                logger.warning(
                    "offset %s of %s cannot be read (%s): what was fed there may be sent again",
                    at, f"{tp.topic}/{tp.partition}", type(error).__name__,
                )  # fmt: skip
                consumer.seek(tp, at + skip)
                skip *= 2
                continue
            for record in records.get(tp, []):
                self._note(record.headers)

    def _note(self, headers: Any) -> None:
        for name, value in headers:
            if name == HEADER and value:
                apply_header(self.book, value)
