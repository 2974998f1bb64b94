"""Ingest: events of the tokens topic -> segments, tail and offset in Redis, then the ack.

Events arrive in micro-batches from bounded buffers. An event is acknowledged once its text is in
Redis, in the order of offsets. The scorer later reads the segments back from Redis: ingest has the
text, but Redis is the truth, and another worker may be the one that scores it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from stream_app.formats.notes import Notes
from stream_app.ingest.arrivals import Arrivals, DecodedEvent, OwnedEvent, decode_batch
from stream_app.ingest.buffers import PartitionBuffers
from stream_app.ingest.decoder import TokenDecoder
from stream_app.ingest.partitions import Assignment
from stream_app.ingest.segmentation import Segmentation
from stream_app.kafka.dead_letters import DeadLetter, headers_of
from stream_app.kafka.records import Event
from stream_app.runtime.retry import Health, retry_forever
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.store.state import (
    Commit,
    Committed,
    LostWritesError,
    RestartedError,
    State,
    too_many_streams,
)
from stream_app.store.store import StreamStore
from xl3m_core import Engine

logger = logging.getLogger("xl3m")

BYTES_PER_TOKEN = 4
"""Bytes that are buffered for each token that scoring may lag."""
CACHED_STREAMS = 20_000
STREAMS_PER_COMMIT = 1024
"""Streams in one round trip at most: one event may have records of many streams."""


def max_buffer_bytes(settings: Settings) -> int:
    """The size of one partition's buffer and of a batch. A rebalance waits for the batch in
    progress, so that must not take long."""
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
        self.segmentation = Segmentation.of_engine(engine).number
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
        """Whether any event is buffered or in progress."""
        return not (self._idle.is_set() and self.buffers.empty)

    async def idle(self) -> None:
        """Return when no batch is in progress."""
        await self._idle.wait()

    def forget(self) -> None:
        """Drop the cached states: after an assignment they may be out of date."""
        self._forget = True

    async def run(self, bundles: AsyncIterator[Event]) -> None:
        """Ingest the events of bundles until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.buffers.fill(bundles))
            while True:
                batch = await self.buffers.batch()
                self._idle.clear()
                await self.apply(batch)
                self._idle.set()
                self.batches += 1

    async def apply(self, batch: Sequence[Event]) -> None:
        """The delivery guarantee, in four steps:

        1. Send events that cannot be used to the dead letters.
        2. Write the others to Redis, except those of streams beyond the limit.
        3. Move the positions in Redis.
        4. Acknowledge.

        If a step before the fourth fails, the events are redelivered, and step 2 skips what Redis
        holds already. No step waits for the model: a rebalance waits for the batch in progress.
        """
        owned = [
            (source, event) for event in batch if (source := self.assignment.of(event.message))
        ]
        await self._fetch_schemas(owned)
        arrivals = await decode_batch(self.decoder, self.dead_letter, owned)
        while (written := await self._commit_batch(arrivals, owned)) is None:
            self.states.clear()
            await self.assignment.trust()
        for _, event in written:
            event.ack()

    async def _commit_batch(
        self, arrivals: Arrivals, batch: Sequence[OwnedEvent]
    ) -> list[OwnedEvent] | None:
        """Steps 2 and 3; returns the events to acknowledge. None if Redis was restarted meanwhile:
        earlier writes may be lost, so the batch is repeated."""
        try:
            await self._admit(arrivals)
            for part in _parts(arrivals):
                while part:
                    part = await self._write(part)
            # A partition lost meanwhile belongs to another worker.
            written = [(source, event) for source, event in batch if self.assignment.owns(source)]
            await self.assignment.advance(written)
            return written
        except RestartedError:
            logger.warning("Redis was restarted: checking what it holds")
            return None

    async def _fetch_schemas(self, batch: Sequence[OwnedEvent]) -> None:
        """Fetch the schemas that decoding needs; wait while the registry is down."""
        if self.decoder.registry.is_asked:
            records = [(e.message.key, e.message.value, headers_of(e.message)) for _, e in batch]
            await retry_forever(self.health, "registry", self.decoder.registry.prepare, records)

    async def _admit(self, arrivals: Arrivals) -> None:
        """Register new streams, and remove those beyond the limit: their events become dead
        letters, each once. A stream that is registered already is always admitted."""
        rejected: dict[Event, str] = {}
        for part in _parts(arrivals):
            full = await self._register(part)
            for stream in [stream for stream in part if stream in full]:
                self.states.pop(stream, None)
                for arrival in arrivals.pop(stream):
                    # The next stream that is admitted counts them.
                    arrival.source.missing += arrival.missing
                    reason = too_many_streams(stream, self.settings.max_streams)
                    rejected.setdefault(arrival.event, reason)
        for event, reason in rejected.items():
            await self.dead_letter(event, reason)

    async def _register(self, arrivals: Arrivals) -> frozenset[str]:
        """Register new streams; returns those beyond the limit."""
        await self._load(list(arrivals))
        new = {
            (stream, event.partition): None
            for stream, events in arrivals.items()
            for event in events
            if event.partition not in self.states[stream].cursor.next
        }
        return await self.store.register_streams([*new], self.settings.max_streams)

    async def _write(self, arrivals: Arrivals) -> Arrivals:
        """One commit per stream in one round trip; returns the events that remain."""
        await self._load(list(arrivals))
        commits = await asyncio.to_thread(self._commits, arrivals)
        results = await self.store.commit(commits, self.assignment.trusted_run_id)
        for commit, result in zip(commits, results, strict=True):
            state = result.state if isinstance(result, Committed) else await self._reload(commit)
            self.states[commit.stream] = state
            if self.assignment.owns(arrivals[commit.stream][0].source):
                self.scorer.streams.on_commit(commit.stream, state.cursor)
        return self._remaining(arrivals)

    async def _load(self, streams: list[str]) -> None:
        """Load states that are not cached. A full cache is cleared: Redis holds all states."""
        missing = [stream for stream in streams if stream not in self.states]
        if self._forget or len(self.states) + len(missing) > CACHED_STREAMS:
            self.states.clear()
            self._forget, missing = False, streams
        if missing:
            self.states |= zip(missing, await self.store.load_all(missing), strict=True)
            # If Redis lost writes, its states are out of date: lost events would count as read
            # once a later event of their stream is written.
            await self.assignment.check_positions()

    async def _reload(self, conflict: Commit) -> State:
        """The current state after a conflict: another worker wrote the stream, or our own attempt
        did, but its reply was lost. Raises LostWritesError if the state is older than ours."""
        state = await self.store.load(conflict.stream)
        if state.cursor.version < conflict.base.cursor.version:
            raise LostWritesError(
                f"stream {conflict.stream!r}: Redis lost writes, perhaps in a restart. "
                "This worker ends; the next one reads again what is missing."
            )
        return state

    def _commits(self, arrivals: Arrivals) -> list[Commit]:
        """For each stream one commit: its events of the first event's partition."""
        commits = []
        for stream, events in arrivals.items():
            partition = events[0].partition
            new = self._new(stream, [event for event in events if event.partition == partition])
            if new:
                commits.append(self._commit(stream, new))
        return commits

    def _commit(self, stream: str, events: list[DecodedEvent]) -> Commit:
        base = self.states[stream]
        chunks = ((chunk.text, chunk.time_ms) for event in events for chunk in event.chunks)
        tail, segments = self.segmenter.extend(base.tail, chunks)
        source = events[0].source
        return Commit(
            stream=stream,
            base=base,
            segments=segments,
            tail=tail,
            partition=source.name,
            epoch=source.epoch,
            next_offset=events[-1].offset + 1,
            gaps=sum(event.missing for event in events),
            cut=self.segmentation,
        )

    def _new(self, stream: str, events: list[DecodedEvent]) -> list[DecodedEvent]:
        """Events that the stream's state does not include yet; redelivered ones are dropped."""
        next_ = self.states[stream].cursor.next
        return [event for event in events if event.offset >= next_.get(event.partition, 0)]

    def _remaining(self, arrivals: Arrivals) -> Arrivals:
        remaining = {stream: self._new(stream, events) for stream, events in arrivals.items()}
        return {stream: events for stream, events in remaining.items() if events}


def _parts(arrivals: Arrivals) -> list[Arrivals]:
    """Divide the arrivals into parts of STREAMS_PER_COMMIT streams."""
    if len(arrivals) <= STREAMS_PER_COMMIT:
        return [dict(arrivals)]
    items = [*arrivals.items()]
    starts = range(0, len(items), STREAMS_PER_COMMIT)
    return [dict(items[start : start + STREAMS_PER_COMMIT]) for start in starts]
