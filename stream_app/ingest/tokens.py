"""Ingest: events of the tokens topic -> segments, tail and offset in Redis, then the ack.

Micro-batches from bounded queues. An event is acknowledged once its text is in Redis, and
strictly in the order of offsets. Knows events that can be acknowledged; not whose they are.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from stream_app.errors import BadEvent
from stream_app.events import Chunk
from stream_app.formats.notes import Notes
from stream_app.ingest.buffers import PartitionBuffers, size
from stream_app.ingest.decoder import Decoded, TokenDecoder
from stream_app.ingest.partitions import Assignment, OwnedPartition
from stream_app.ingest.segmentation import Segmentation
from stream_app.kafka.dead_letters import DeadLetter, headers_of
from stream_app.kafka.records import (
    check_readable,
    first_offset,
    is_empty,
    time_ms,
)
from stream_app.runtime.retry import Health, retry_forever
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.store.limits import too_many_streams
from stream_app.store.state import Commit, LostWritesError, RestartedError, State
from stream_app.store.store import StreamStore
from xl3m_core import Engine

logger = logging.getLogger("xl3m")

BYTES_PER_TOKEN = 4
"""Bytes that are buffered for each token that scoring may lag."""
CACHED_STREAMS = 20_000
AT_ONCE_BYTES = 65_536
"""Of an event that is decoded on the event loop: a megabyte of odd JSON takes two seconds."""
STREAMS_AT_ONCE = 1024
"""In one round trip: an event may have records of very many."""


@dataclass(frozen=True, slots=True)
class DecodedEvent:
    """What an event says of one stream, where it came from, and how many offsets before it never
    came."""

    source: OwnedPartition
    event: Any
    chunks: list[Chunk]
    gap: int

    @property
    def offset(self) -> int:
        """Its place in the partition."""
        return int(self.event.message.offset)

    @property
    def partition(self) -> str:
        """The name under which its offset is kept."""
        return self.source.name


def max_buffer_bytes(settings: Settings) -> int:
    """Of one partition's buffer, and of a batch: what is in progress when a rebalance comes must
    not take long to finish."""
    return settings.max_lag_tokens * BYTES_PER_TOKEN


class Ingest:
    """One per worker: the only writer of the streams whose partitions the worker owns."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        store: StreamStore,
        assignment: Assignment,
        buffers: PartitionBuffers,
        scorer: Scorer,
        dead_letter: DeadLetter,
        health: Health,
        notes: Notes | None = None,
    ) -> None:
        self.settings = settings
        self.segmenter = engine.segmenter()
        self.decoder = TokenDecoder(settings, engine.model.decode_fragment, notes)
        self.cut = Segmentation.of_engine(engine).number
        self.store = store
        self.assignment = assignment
        self.buffers = buffers
        self.scorer = scorer
        self.dead_letter = dead_letter
        self.health = health
        self.states: dict[str, State] = {}
        self.batches = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._forget = False

    @property
    def working(self) -> bool:
        """Whether any event is at hand."""
        return not (self._idle.is_set() and self.buffers.empty)

    async def idle(self) -> None:
        """Return when no batch is under way."""
        await self._idle.wait()

    def forget(self) -> None:
        """States at hand may be old: partitions were assigned anew."""
        self._forget = True

    async def run(self, polls: AsyncIterator[Any]) -> None:
        """Take in the events of polls for as long as they come."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.buffers.fill(polls))
            while True:
                batch = await self.buffers.batch()
                self._idle.clear()
                await self.apply(batch)
                self._idle.set()
                self.batches += 1

    async def apply(self, batch: list[Any]) -> None:
        """The delivery guarantee, in order: (1) dead-letter what cannot be used, (2) write the
        rest to Redis, but for what would make one stream too many, (3) note the positions,
        (4) acknowledge. Whatever fails before (4) is delivered again, and (2) does nothing for
        what is already there. Nothing here waits for the model: a rebalance waits for a batch."""
        ours = [(owned, event) for event in batch if (owned := self.assignment.of(event.message))]
        await self._prepare(ours)
        arrivals = await self._arrivals(ours)
        while (done := await self._next_batch(arrivals, ours)) is None:
            self.states.clear()
            await self.assignment.trust()
        for _, event in done:
            event.ack()

    async def _next_batch(
        self, arrivals: dict[str, list[DecodedEvent]], ours: list[tuple[OwnedPartition, Any]]
    ) -> list[tuple[OwnedPartition, Any]] | None:
        """Write, note the positions; what may be acknowledged then. None if Redis was started
        again meanwhile: what was written before may be lost, so all of it is looked at again."""
        try:
            await self._admit(arrivals)
            for part in _parts(arrivals):
                while part:
                    part = await self._write(part)
            # A partition lost while all this went on is another's to speak for now.
            done = [(owned, event) for owned, event in ours if self.assignment.owns(owned)]
            await self.assignment.advance(done)
            return done
        except RestartedError:
            logger.warning("Redis was started again: seeing what it holds")
            return None

    async def _prepare(self, batch: list[tuple[OwnedPartition, Any]]) -> None:
        """Have the schemas at hand by which the events are decoded: a registry that is away is
        waited for, and so are they."""
        if self.decoder.registry.is_asked:
            records = [(e.message.key, e.message.value, headers_of(e.message)) for _, e in batch]
            await retry_forever(self.health, "registry", self.decoder.registry.prepare, records)

    async def _arrivals(
        self, batch: list[tuple[OwnedPartition, Any]]
    ) -> dict[str, list[DecodedEvent]]:
        """The usable events by stream, each stream's in order. An event has all it says of a stream
        in one arrival: that is in Redis as a whole, or not at all."""
        arrivals: dict[str, list[DecodedEvent]] = {}
        for source, event in batch:
            message = event.message
            source.observe(message.offset, first_offset(message))
            if is_empty(message):
                continue
            try:
                chunks, reason = await self._decode(event)
            except BadEvent as error:
                chunks, reason = [], str(error)
            if reason:
                await self.dead_letter(event, reason)
            for chunk in chunks:
                waiting = arrivals.setdefault(chunk.stream, [])
                if waiting and waiting[-1].event is event:
                    waiting[-1].chunks.append(chunk)
                    continue
                # A gap that waits to be counted came after what is there already; it is counted on
                # the first stream of the event.
                gap = 0 if source.has(event.message.offset) else source.pop_missing()
                waiting.append(DecodedEvent(source, event, [chunk], gap))
        return arrivals

    async def _decode(self, event: Any) -> Decoded:
        message = event.message
        check_readable(message)
        source, headers = f"{message.topic}/{message.partition}", headers_of(message)
        decode = partial(self.decoder.decode, message.key, message.value, headers=headers)
        decode = partial(decode, source=source, time_ms=time_ms(message))
        return decode() if size(event) <= AT_ONCE_BYTES else await asyncio.to_thread(decode)

    async def _admit(self, arrivals: dict[str, list[DecodedEvent]]) -> None:
        """List the streams that are new, and dead-letter what is of one too many: an event once,
        for the first of its streams there is no room for. A stream that is listed is never one too
        many, whoever listed it."""
        unheard: dict[Any, str] = {}
        for part in _parts(arrivals):
            refused = await self._enlist(part)
            for stream in [stream for stream in part if stream in refused]:
                self.states.pop(stream, None)
                for arrival in arrivals.pop(stream):
                    arrival.source.missing += arrival.gap  # is counted on the next stream with room
                    reason = too_many_streams(stream, self.settings.max_streams)
                    unheard.setdefault(arrival.event, reason)
        for event, reason in unheard.items():
            await self.dead_letter(event, reason)

    async def _enlist(self, arrivals: dict[str, list[DecodedEvent]]) -> frozenset[str]:
        """Those there is no room for."""
        await self._load(list(arrivals))
        new = {
            (stream, arrival.partition): None
            for stream, waiting in arrivals.items()
            for arrival in waiting
            if arrival.partition not in self.states[stream].cursor.next
        }
        return await self.store.register_streams([*new], self.settings.max_streams)

    async def _write(
        self, arrivals: dict[str, list[DecodedEvent]]
    ) -> dict[str, list[DecodedEvent]]:
        """One step of every stream in one round trip; returns what is still to be written."""
        await self._load(list(arrivals))
        commits = await asyncio.to_thread(self._advance, arrivals)
        states = await self.store.commit(commits, self.assignment.trusted_run_id)
        for commit, state in zip(commits, states, strict=True):
            state = state or await self._reload(commit)
            self.states[commit.stream] = state
            if self.assignment.owns(arrivals[commit.stream][0].source):
                self.scorer.streams.on_commit(commit.stream, state.cursor)
        return self._left(arrivals)

    async def _load(self, streams: list[str]) -> None:
        """States not at hand. The cache is emptied when full: they are all in Redis."""
        missing = [stream for stream in streams if stream not in self.states]
        if self._forget or len(self.states) + len(missing) > CACHED_STREAMS:
            self.states.clear()
            self._forget, missing = False, streams
        if missing:
            self.states |= zip(missing, await self.store.load_all(missing), strict=True)
            # A Redis that went back must not be taken at its word: events it lost would count as
            # seen once a later one of their stream is written.
            await self.assignment.check_generation()

    async def _reload(self, refused: Commit) -> State:
        """Where the stream stands now that it was written meanwhile, by another or by a try whose
        reply never came. It can't have gone back."""
        state = await self.store.load(refused.stream)
        if state.cursor.version < refused.base.cursor.version:
            raise LostWritesError(
                f"stream {refused.stream!r}: Redis lost what it had taken, perhaps in a restart. "
                "This worker ends; the next one reads again what is missing."
            )
        return state

    def _advance(self, arrivals: dict[str, list[DecodedEvent]]) -> list[Commit]:
        """For each stream the step its next arrivals of one partition amount to."""
        commits = []
        for stream, waiting in arrivals.items():
            partition = waiting[0].partition
            step = [a for a in waiting if a.partition == partition]
            fresh = self._unseen(stream, step)
            if fresh:
                commits.append(self._commit(stream, fresh))
        return commits

    def _commit(self, stream: str, fresh: list[DecodedEvent]) -> Commit:
        base = self.states[stream]
        chunks = ((chunk.text, chunk.time_ms) for arrival in fresh for chunk in arrival.chunks)
        tail, segments = self.segmenter.extend(base.tail, chunks)
        source = fresh[0].source
        return Commit(
            stream=stream,
            base=base,
            segments=segments,
            tail=tail,
            partition=source.name,
            epoch=source.epoch,
            next_offset=fresh[-1].offset + 1,
            gaps=sum(arrival.gap for arrival in fresh),
            cut=self.cut,
        )

    def _unseen(self, stream: str, arrivals: list[DecodedEvent]) -> list[DecodedEvent]:
        """Those not yet part of the stream's state: a redelivered event changes nothing."""
        next_ = self.states[stream].cursor.next
        return [a for a in arrivals if a.offset >= next_.get(a.partition, 0)]

    def _left(self, arrivals: dict[str, list[DecodedEvent]]) -> dict[str, list[DecodedEvent]]:
        left = {stream: self._unseen(stream, waiting) for stream, waiting in arrivals.items()}
        return {stream: waiting for stream, waiting in left.items() if waiting}


def _parts(arrivals: dict[str, list[DecodedEvent]]) -> list[dict[str, list[DecodedEvent]]]:
    """As many streams at a time as one round trip may have."""
    if len(arrivals) <= STREAMS_AT_ONCE:
        return [dict(arrivals)]
    items = [*arrivals.items()]
    starts = range(0, len(items), STREAMS_AT_ONCE)
    return [dict(items[start : start + STREAMS_AT_ONCE]) for start in starts]
