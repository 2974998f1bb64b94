"""Arrivals: a batch of events, decoded and grouped by stream."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from stream_app.errors import BadEvent
from stream_app.events import Chunk
from stream_app.ingest.buffers import size
from stream_app.ingest.decoder import Decoded, TokenDecoder
from stream_app.ingest.owned_partition import OwnedPartition, partition_name
from stream_app.kafka.dead_letters import DeadLetter, headers_of
from stream_app.kafka.records import Event, check_readable, first_offset, is_empty, time_ms

INLINE_BYTES = 65_536
"""Larger events are decoded on a thread: a megabyte of hard JSON takes two seconds."""

OwnedEvent = tuple[OwnedPartition, Event]
Arrivals = dict[str, list["DecodedEvent"]]
"""Decoded events by stream, each stream's in the order of offsets."""


@dataclass(frozen=True, slots=True)
class DecodedEvent:
    """The chunks of one stream in an event. missing: number of offsets missing before it, if this
    stream counts them."""

    source: OwnedPartition
    event: Event
    chunks: list[Chunk]
    missing: int

    @property
    def offset(self) -> int:
        """The event's offset."""
        return int(self.event.message.offset)

    @property
    def partition(self) -> str:
        """The name of the event's partition in Redis."""
        return self.source.name


async def decode_batch(
    decoder: TokenDecoder, dead_letter: DeadLetter, batch: Sequence[OwnedEvent]
) -> Arrivals:
    """Decode a batch, and send events that cannot be used to the dead letters. All chunks of a
    stream in an event are one DecodedEvent, which is written to Redis as a whole or not at all."""
    arrivals: Arrivals = {}
    for source, event in batch:
        message = event.message
        source.observe(message.offset, first_offset(message))
        if is_empty(message):
            continue
        try:
            chunks, reason = await _decode(decoder, event)
        except BadEvent as error:
            chunks, reason = [], str(error)
        if reason:
            await dead_letter(event, reason)
        for chunk in chunks:
            events = arrivals.setdefault(chunk.stream, [])
            if events and events[-1].event is event:
                events[-1].chunks.append(chunk)
                continue
            # The first stream of an event counts the missing offsets; a redelivered event is
            # before them.
            missing = 0 if source.has(message.offset) else source.pop_missing()
            events.append(DecodedEvent(source, event, [chunk], missing))
    return arrivals


async def _decode(decoder: TokenDecoder, event: Event) -> Decoded:
    message = event.message
    check_readable(message)
    source, headers = partition_name(message), headers_of(message)
    decode = partial(decoder.decode, message.key, message.value, headers=headers)
    decode = partial(decode, source=source, time_ms=time_ms(message))
    return decode() if size(event) <= INLINE_BYTES else await asyncio.to_thread(decode)
