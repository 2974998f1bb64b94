"""StreamStore: the state of streams in Redis: segment log, tail, cursor, and scored ranges.

Every change is one atomic step that names the state it starts from. A step that is repeated, or
sent by a worker that no longer owns the partition, is refused.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace
from typing import Self

from stream_app.runtime.retry import Health
from stream_app.settings import Settings
from stream_app.store import keys as layout
from stream_app.store.codec import (
    pack_segment,
    pack_tail,
    to_committed,
    to_cursor,
    to_extended,
    to_query_view,
    to_range,
    to_segments,
    unpack_tail,
)
from stream_app.store.connection import AnyRedis
from stream_app.store.keys import DEFAULT_KEYS, Keys
from stream_app.store.leases import LeaseStore
from stream_app.store.partitions import PartitionStore
from stream_app.store.questions import QuestionStore
from stream_app.store.range_update import Extended, RangeUpdate, spans
from stream_app.store.ranking import best_unsettled
from stream_app.store.retrying import retried
from stream_app.store.rows import ROW_BYTES, Flag, Rows, row_arguments
from stream_app.store.scripts import Call, Script
from stream_app.store.state import (
    ANY_REDIS,
    NO_LIMIT,
    UNLIMITED,
    Commit,
    Committed,
    Conflict,
    Cursor,
    Edge,
    QueryView,
    Retention,
    ScoredRange,
    Snapshot,
    State,
)
from stream_app.store.subscription import Message, follow, messages
from xl3m_core import Segment
from xl3m_core.smoothing import REACH


class StreamStore:
    """The state of all streams. retention: bounds each stream's log. health: where its methods show
    that they wait for Redis; None: they raise at once, see `retrying`."""

    def __init__(
        self,
        redis: AnyRedis,
        retention: Retention = UNLIMITED,
        keys: Keys = DEFAULT_KEYS,
        health: Health | None = None,
    ) -> None:
        self.redis = redis
        self.retention = retention
        self.keys = keys
        self.health = health
        self.questions = QuestionStore(redis, keys, health)
        self.partitions = PartitionStore(redis, keys, health)
        self.leases = LeaseStore(redis, keys, health)
        self._commit = Script(redis, "commit.lua")
        self._extend_range = Script(redis, "rows.lua", "extend_range.lua")
        self._read_view = Script(redis, "rows.lua", "read_view.lua")
        self._register_streams = Script(redis, "register_streams.lua")

    @classmethod
    def from_settings(
        cls, settings: Settings, redis: AnyRedis, health: Health | None = None
    ) -> Self:
        """The streams of the settings' prefix, with the settings' retention."""
        retention = Retention(settings.retention_segments, settings.retention_bytes)
        return cls(redis, retention, Keys(settings.prefix), health)

    # -- the log ---------------------------------------------------------------------------

    async def load(self, stream: str) -> State:
        """The stream's state; that of a new stream if it has none."""
        return (await self.load_all([stream]))[0]

    @retried
    async def load_all(self, streams: Sequence[str]) -> list[State]:
        """The states of several streams, in one round trip."""
        async with self.redis.pipeline(transaction=True) as pipe:
            for stream in streams:
                pipe.hgetall(self.keys.cursor(stream))
                pipe.get(self.keys.tail(stream))
            replies = iter(await pipe.execute())
        return [
            State(to_cursor(fields), unpack_tail(tail))
            for fields, tail in zip(replies, replies, strict=True)
        ]

    @retried
    async def cursors(self, streams: Sequence[str]) -> list[Cursor]:
        """The cursors of several streams, without their tails, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for stream in streams:
                pipe.hgetall(self.keys.cursor(stream))
            return [*map(to_cursor, await pipe.execute())]

    @retried
    async def commit(
        self, commits: Sequence[Commit], trusted: str = ANY_REDIS
    ) -> list[Committed | Conflict]:
        """Write each commit, all in one round trip. Raises FencedError if a partition has a later
        owner, and RestartedError if Redis is not the `trusted` process."""
        calls = [self._commit_call(commit, trusted) for commit in commits]
        replies = await self._commit.each(calls)
        return [to_committed(*pair) for pair in zip(commits, replies, strict=True)]

    def _commit_call(self, commit: Commit, trusted: str) -> Call:
        names = [key(commit.stream) for key in (self.keys.log, self.keys.tail, self.keys.cursor)]
        return names, {
            "version": commit.base.cursor.version,
            "partition": commit.partition,
            "epoch": commit.epoch,
            "next_offset": commit.next_offset,
            "gaps": commit.gaps,
            "tail": pack_tail(commit.tail),
            "segments": [*map(pack_segment, commit.segments)],
            "max_segments": self.retention.segments,
            "max_bytes": self.retention.bytes,
            "run_id": trusted,
            "cut": commit.new_cut,
        }

    async def segments(self, stream: str, lo: int, hi: int) -> list[Segment]:
        """The segments [lo, hi) of the log that are still retained."""
        return (await self.logs([(stream, range(lo, hi))]))[0]

    async def segments_at(self, stream: str, indices: Sequence[int]) -> list[Segment]:
        """The segments of these increasing indices that are still retained."""
        return (await self.logs([(stream, indices)]))[0]

    @retried
    async def logs(self, wanted: Sequence[tuple[str, Sequence[int]]]) -> list[list[Segment]]:
        """The segments of each (stream, indices) that are still retained, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for stream, indices in wanted:
                for lo, hi in spans(indices):
                    pipe.xrange(self.keys.log(stream), f"{lo}-1", f"{hi - 1}-1")
            replies = map(to_segments, await pipe.execute())
        return [[s for _ in spans(indices) for s in next(replies)] for _, indices in wanted]

    # -- the lists of streams ---------------------------------------------------------------

    @retried
    async def register_streams(
        self, streams: Sequence[tuple[str, str]], limit: int = NO_LIMIT
    ) -> frozenset[str]:
        """Put (stream, topic/partition) pairs on the lists of streams; topic/partition is '' for a
        stream that only has questions yet. Returns the streams left out because there would be more
        than `limit` of them; a stream that is listed is never left out."""
        if not streams:
            return frozenset()
        lists = [self.keys.streams(partition.split("#")[0]) for _, partition in streams]
        names = [stream for stream, _ in streams]
        reply = await self._register_streams(
            [self.keys.streams(), *lists], limit=limit, streams=names
        )
        return frozenset(reply["refused"])

    @retried
    async def streams(self, partition: str = "") -> list[str]:
        """All streams, or those of one topic/partition."""
        names = self.redis.sscan_iter(self.keys.streams(partition))  # may yield a name twice
        return sorted({name.decode() async for name in names})

    async def has_stream(self, stream: str) -> bool:
        """Whether the stream is listed."""
        return bool(await self.redis.sismember(self.keys.streams(), stream))

    # -- the ranges of questions -------------------------------------------------------------

    async def scored_range(self, stream: str, qid: str) -> ScoredRange | None:
        """The question's scored range; None if the question does not exist, or no longer."""
        return (await self.scored_ranges(stream, [qid]))[0]

    @retried
    async def scored_ranges(self, stream: str, qids: Iterable[str]) -> list[ScoredRange | None]:
        """`scored_range` of each question, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for qid in qids:
                pipe.hgetall(self.keys.scored_range(stream, qid))
            return [*map(to_range, await pipe.execute())]

    @retried
    async def extend_range(self, updates: Sequence[RangeUpdate], k: int) -> list[Extended]:
        """Write each update's rows and what they change of the top-k, all in one round trip. The
        texts of segments that enter a top-k are copied from the log within Redis."""
        calls = [update.as_script_call(self.keys, k) for update in updates]
        return [*map(to_extended, await self._extend_range.each(calls))]

    @retried
    async def rows(self, stream: str, qid: str, lo: int, hi: int) -> Rows:
        """The question's rows of the segments [lo, hi)."""
        lo = max(lo, 0)
        size = layout.ROWS_PER_BLOCK
        numbers = range(lo // size, -(-hi // size))
        async with self.redis.pipeline(transaction=True) as pipe:
            for number in numbers:
                pipe.get(self.keys.rows(stream, qid, number))
            blocks = await pipe.execute()
        data = b"".join((block or b"").ljust(size * ROW_BYTES, b"\0") for block in blocks)
        start = numbers.start * size
        return Rows(lo, data[(lo - start) * ROW_BYTES : max(hi - start, 0) * ROW_BYTES])

    async def snapshot(self, stream: str, qid: str) -> Snapshot | None:
        """The question's top-k and the stream's state in one round trip; None if the question has
        no range."""
        return (await self.query_view(stream, qid)).snapshot

    @retried
    async def query_view(self, stream: str, qid: str = "") -> QueryView:
        """All that a query needs in one round trip. qid: '' for the standing question that was set
        last."""
        k = self.keys
        names = [name(stream) for name in (k.cursor, k.tail, k.questions, k.log)]
        names += [name(stream, "") for name in (k.scored_range, k.top, k.text, k.all_rows)]
        return to_query_view(await self._read_view(names, qid=qid, **row_arguments()))

    async def with_unsettled(self, stream: str, qid: str, snapshot: Snapshot, k: int) -> Snapshot:
        """The snapshot of a range that does not cover the log, with the best of the segments that
        are read and not settled. Reads all rows, and the texts of the best."""
        cursor = snapshot.state.cursor
        rows = await self.rows(stream, qid, cursor.first - REACH, cursor.head)
        best = dict(await asyncio.to_thread(best_unsettled, rows, cursor.first, k))
        end = [i for i in range(cursor.head - REACH, cursor.head) if rows.flag(i) is Flag.SMOOTHED]
        found = await self.segments_at(stream, sorted({*best, *end}))
        last = [segment for segment in found if segment.index in end]
        top = [(segment, best[segment.index]) for segment in found if segment.index in best]
        return replace(snapshot, top=snapshot.top + top, edges=[Edge(rows, last)])

    # -- messages ----------------------------------------------------------------------------

    @retried
    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> int:
        """Publish each (channel, message), all in one round trip; returns how often any was
        received."""
        if not messages:
            return 0
        async with self.redis.pipeline(transaction=False) as pipe:
            for channel, message in messages:
                pipe.publish(channel, message)
            return sum(await pipe.execute())

    def listen(self, *channels: str) -> AsyncGenerator[Message | None, None]:
        """Each message on the channels; see `subscription.messages`."""
        return messages(self.redis, *channels)

    def follow(self, *channels: str) -> AsyncGenerator[Message | None, None]:
        """Each message on the channels, through reconnects; see `subscription.follow`."""
        return follow(self.redis, *channels)

    async def listening_workers(self) -> int:
        """How many workers listen for queries now."""
        return int((await self.redis.pubsub_numsub(self.keys.query_channel()))[0][1])

    # -- the server --------------------------------------------------------------------------

    async def ping(self) -> None:
        """Raises RedisError or OSError unless Redis answers."""
        await self.redis.ping()

    async def memory_usage(self, stream: str) -> tuple[int, int]:
        """Bytes that all keys of a stream take in Redis, and how many commands it took to know."""
        keys = self.keys
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.hkeys(keys.questions(stream))
            pipe.hget(keys.cursor(stream), "head")
            qids, head = await pipe.execute()
            names = [name(stream) for name in (keys.log, keys.tail, keys.cursor, keys.questions)]
            for qid in qids:
                names += keys.question_keys(stream, qid.decode(), int(head or 0))
            for name in names:
                pipe.memory_usage(name)
            return sum(filter(None, await pipe.execute())), len(names) + 2
