"""Recovery: finds in Kafka what a feeder had sent before it was killed.

A feeder may die after Kafka confirmed and before the checkpoint file is saved. Therefore the header
of each event says which bytes of which file it holds.
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
# Records that a killed feeder had already sent arrive within this time.
SETTLE_SECONDS = 1.0
_POLL_MS = 500


def checkpoint_header(chunk: Chunk, sent_hash: FingerprintHash) -> tuple[str, bytes]:
    """A header: which bytes of which file an event holds, and the fingerprint up to their end."""
    entry: Checkpoint = chunk.source
    fingerprint = "" if entry.archive else f":{format_hash(sent_hash)}"
    return HEADER, f"{entry.id}:{chunk.start}:{chunk.end}{fingerprint}".encode()


def apply_header(checkpoints: Checkpoints, value: bytes) -> None:
    """Advance the checkpoint that the header names; a malformed header is ignored."""
    name, *words = value.decode("ascii", "replace").split(":")
    entry = checkpoints.entries.get(name)
    try:
        end = int(words[1])
        if entry and end > entry.sent:
            entry.sent_hash = entry.sent_hash if entry.archive else parse_hash(end, words[2:])
            entry.sent = end
    except (ValueError, IndexError):
        logger.warning("ignoring a malformed %s header: it was not written by `xl3m feed`", HEADER)


async def recover(settings: Settings, checkpoints: Checkpoints, cluster: str) -> None:
    """Advance the checkpoints to what the topic holds.

    Raises SettingsError if they belong to another topic or cluster, UnreachableError if the broker
    does not answer.
    """
    origin = {"topic": settings.tokens_topic, "cluster": cluster}
    if checkpoints.origin and checkpoints.origin != origin:
        was = " of cluster ".join(str(each) for each in checkpoints.origin.values())
        raise SettingsError(
            f"the positions are of topic {was}, not of {settings.tokens_topic} of cluster "
            f"{cluster}: name another --positions file"
        )
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            scan = _Scan(settings, checkpoints, await _partitions(settings))
        await scan.run(first=not checkpoints.origin)
    except (KafkaError, TimeoutError) as error:
        raise UnreachableError(
            f"the broker at {settings.broker_address} does not say what {settings.tokens_topic} "
            f"holds ({type(error).__name__}): try again"
        ) from error
    checkpoints.origin = origin
    checkpoints.save()


async def end_offsets(settings: Settings) -> dict[str, int]:
    """The next offset of each partition of the topic, by `topic/partition`."""
    partitions = await _partitions(settings)
    async with AIOKafkaConsumer(**auth.kafka(settings)) as consumer:
        found = await consumer.end_offsets(partitions)
    return {f"{tp.topic}/{tp.partition}": offset for tp, offset in found.items()}


async def _partitions(settings: Settings) -> list[TopicPartition]:
    count = (await partition_counts(settings)).get(settings.tokens_topic, 0)
    return [TopicPartition(settings.tokens_topic, number) for number in range(count)]


class _Scan:
    """Reads the headers of the topic's events."""

    def __init__(
        self, settings: Settings, checkpoints: Checkpoints, partitions: list[TopicPartition]
    ) -> None:
        self.checkpoints = checkpoints
        self.partitions = partitions
        self.options = auth.kafka(settings)

    async def run(self, first: bool) -> None:
        """Read each partition from its known offset to its end; first: only note the ends."""
        options = dict(self.options, enable_auto_commit=False, auto_offset_reset="earliest")
        async with AIOKafkaConsumer(**options) as consumer:
            if not first and not self.checkpoints.clean:
                await asyncio.sleep(SETTLE_SECONDS)
            last = await consumer.end_offsets(self.partitions)
            start = await consumer.beginning_offsets(self.partitions)
            for tp in self.partitions:
                name = f"{tp.topic}/{tp.partition}"
                known = last[tp] if first else self.checkpoints.next_offsets.get(name, 0)
                begin = max(known, start[tp]) if known <= last[tp] else start[tp]
                await self._read(consumer, tp, begin, last[tp])
                self.checkpoints.next_offsets[name] = last[tp]

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
                    "offset %s of %s cannot be read (%s): its lines may be sent twice",
                    at, f"{tp.topic}/{tp.partition}", type(error).__name__,
                )  # fmt: skip
                consumer.seek(tp, at + skip)
                skip *= 2
                continue
            for record in records.get(tp, []):
                self._apply(record.headers)

    def _apply(self, headers: Any) -> None:
        for name, value in headers:
            if name == HEADER and value:
                apply_header(self.checkpoints, value)
