"""StreamStore: a stream's state in Redis. Segment log, tail and cursor; its questions' ranges.

Every change is one atomic step that names the state it starts from, so that a step done
twice, or by one who is no longer the owner, is refused. Knows Redis; no Kafka, no model.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.asyncio import Redis

from stream_app.store.codec import pack_segment, pack_tail, unpack_tail
from stream_app.store.extensions import expired_blocks, range_update_call
from stream_app.store.keys import DEFAULT_KEYS, Keys
from stream_app.store.questions import NO_LIMIT, QuestionStore
from stream_app.store.replies import (
    to_cursor,
    to_query_view,
    to_range,
    to_segments,
    to_state,
)
from stream_app.store.scripts import Call, Script
from stream_app.store.state import (
    Commit,
    Cursor,
    FencedError,
    LostWritesError,
    PositionUpdate,
    QueryView,
    RangeUpdate,
    RestartedError,
    ScoredRange,
    Snapshot,
    State,
)
from xl3m_core import Segment

ANY_REDIS = ""
"""Else the run id of the one that may be written to: a Redis that was started again has another,
and commits and positions are refused there with a RestartedError."""


class StreamStore(QuestionStore):
    """The state of all streams. `log_segments` and `log_bytes` bound each stream's log."""

    def __init__(
        self, redis: Redis, log_segments: int, log_bytes: int, keys: Keys = DEFAULT_KEYS
    ) -> None:
        super().__init__(redis, keys)
        self.limits = (log_segments, log_bytes)
        self._commit = Script(redis, "commit.lua")
        self._extend_range = Script(redis, "extend_range.lua")
        self._move_position = Script(redis, "move_position.lua")
        self._read_view = Script(redis, "read_view.lua")
        self._register_streams = Script(redis, "register_streams.lua")

    # -- the log ---------------------------------------------------------------------------

    async def load(self, stream: str) -> State:
        """The stream's state; that of a new stream if it has none."""
        return (await self.load_all([stream]))[0]

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

    async def cursors(self, streams: Sequence[str]) -> list[Cursor]:
        """Where several streams stand, without their tails."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for stream in streams:
                pipe.hgetall(self.keys.cursor(stream))
            return [*map(to_cursor, await pipe.execute())]

    async def commit(
        self, commits: Sequence[Commit], trusted: str = ANY_REDIS
    ) -> list[State | None]:
        """Write each commit, all in one round trip: its new state, or None if it was refused
        because another worker wrote that stream meanwhile. Raises FencedError for a zombie."""
        calls = [self._commit_call(commit, trusted) for commit in commits]
        replies = await self._commit.each(calls)
        return [to_state(commit, reply) for commit, reply in zip(commits, replies, strict=True)]

    def _commit_call(self, c: Commit, trusted: str) -> Call:
        names = [self.keys.log(c.stream), self.keys.tail(c.stream), self.keys.cursor(c.stream)]
        where = [c.base.cursor.version, c.partition, c.epoch, c.next_offset, c.gaps]
        segments = [pack_segment(segment) for segment in c.segments]
        return names, [*where, pack_tail(c.tail), *self.limits, trusted, c.new_cut, *segments]

    async def segments(self, stream: str, lo: int, hi: int) -> list[Segment]:
        """Segments lo up to hi of the log, those that are still retained."""
        return (await self.logs([(stream, range(lo, hi))]))[0]

    async def logs(self, wanted: Sequence[tuple[str, Sequence[int]]]) -> list[list[Segment]]:
        """Of each (stream, indices) the segments that are still retained, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for stream, indices in wanted:
                for lo, hi in _spans(indices):
                    pipe.xrange(self.keys.log(stream), f"{lo}-1", f"{hi - 1}-1")
            replies = map(to_segments, await pipe.execute())
        return [[s for _ in _spans(indices) for s in next(replies)] for _, indices in wanted]

    async def run_id(self) -> str:
        """Names the running process of Redis."""
        return str((await self.redis.info("server"))["run_id"])

    # -- partitions ------------------------------------------------------------------------

    async def draw_epoch(self, partition: str, still: Callable[[], None] = lambda: None) -> int:
        """A number larger than any that an earlier owner of the partition holds. still: raises if
        the partition is another's by now, however long Redis was away."""

        async def write(pipe: Any) -> None:
            still()
            pipe.multi()
            pipe.hincrby(self.keys.partition(partition), "epoch", 1)

        (epoch,) = await self.redis.transaction(write, self.keys.partition(partition))
        return int(epoch)

    async def position(self, partition: str) -> tuple[int | None, int]:
        """The partition's first offset not in Redis (None: nothing is), and how often its topic
        was made again."""
        return (await self.positions([partition]))[0]

    async def positions(self, partitions: Sequence[str]) -> list[tuple[int | None, int]]:
        """`position` of each, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for partition in partitions:
                pipe.hmget(self.keys.partition(partition), ["next", "made"])
            replies = await pipe.execute()
        return [(None if next_ is None else int(next_), int(made or 0)) for next_, made in replies]

    async def gap(self, partition: str) -> int:
        """Offsets missing before the partition's position that no stream has counted yet."""
        return int(await self.redis.hget(self.keys.partition(partition), "gap") or 0)

    async def move_positions(
        self, moves: Sequence[PositionUpdate], trusted: str = ANY_REDIS
    ) -> None:
        """Note for each partition that everything before its new position is in Redis, all in one
        round trip. Raises FencedError if the partition has a later owner, and LostWritesError if
        it does not stand where its owner left it: positions are written last, so a Redis that lost
        anything of a partition lost this as well."""
        calls: list[Call] = []
        for move in moves:
            old = "" if move.old is None else move.old
            args = [old, move.new, move.epoch, trusted, move.gap]
            calls.append(([self.keys.partition(move.partition)], args))
        replies = await self._move_position.each(calls)
        for move, reply in zip(moves, replies, strict=True):
            if reply == -2:
                raise RestartedError
            if reply < 0:
                raise FencedError.of(move.partition, move.epoch)
            if reply == 0:
                raise LostWritesError(
                    f"{move.partition}: Redis is not where this worker left it; it lost writes, "
                    "perhaps in a restart. This worker ends; the next one reads again what is "
                    "missing."
                )

    async def topic_id(self, partition: str) -> str:
        """The id of the topic whose offsets are noted for the partition; empty if not known."""
        return (await self.redis.hget(self.keys.partition(partition), "topic") or b"").decode()

    async def note_topic_id(self, partition: str, epoch: int, topic_id: str) -> None:
        """The partition's offsets are of the topic with this id. Raises FencedError if the
        partition has a later owner."""

        async def write(pipe: Any) -> None:
            await self._fenced(pipe, (partition, epoch))
            pipe.multi()
            pipe.hset(self.keys.partition(partition), "topic", topic_id)

        await self.redis.transaction(write, self.keys.partition(partition))

    async def reset_partition(
        self, partition: str, epoch: int, made: int, topic_id: str = ""
    ) -> None:
        """The partition's topic was made again, for the `made`th time: nothing of it is read.
        Raises FencedError if the partition has a later owner."""
        place = {"next": 0, "made": made, "gap": 0, "topic": topic_id}

        async def write(pipe: Any) -> None:
            await self._fenced(pipe, (partition, epoch))
            pipe.multi()
            pipe.hset(self.keys.partition(partition), mapping=place)

        await self.redis.transaction(write, self.keys.partition(partition))

    async def register_streams(
        self, streams: Sequence[tuple[str, str]], most: int = NO_LIMIT
    ) -> frozenset[str]:
        """Make (stream, topic/partition) pairs known to those who list streams; topic/partition is
        '' if nothing feeds it yet. Returns those left out because there would be more than `most`
        streams: never one that is listed, and never too few, however many workers list."""
        if not streams:
            return frozenset()
        lists = [self.keys.streams(partition.split("#")[0]) for _, partition in streams]
        names = [stream for stream, _ in streams]
        refused = await self._register_streams([self.keys.streams(), *lists], [most, *names])
        return frozenset(name.decode() for name in refused)

    async def streams(self, partition: str = "") -> list[str]:
        """All streams, or those of one topic/partition."""
        names = self.redis.sscan_iter(self.keys.streams(partition))  # may tell one twice
        return sorted({name.decode() async for name in names})

    # -- the ranges of questions -------------------------------------------------------------

    async def scored_range(self, stream: str, qid: str) -> ScoredRange | None:
        """The question's scored range, None if it has none (any more)."""
        return (await self.scored_ranges(stream, [qid]))[0]

    async def scored_ranges(self, stream: str, qids: Iterable[str]) -> list[ScoredRange | None]:
        """`range` of each question, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for qid in qids:
                pipe.hgetall(self.keys.scored_range(stream, qid))
            return [*map(to_range, await pipe.execute())]

    async def extend_range(self, extensions: Sequence[RangeUpdate], k: int) -> list[bool | None]:
        """Write each extension, all in one round trip: whether the top-k changed, or None if it
        was refused because the range is not as it was seen."""
        calls = [range_update_call(self.keys, extension, k) for extension in extensions]
        old = [expired_blocks(self.keys, extension) for extension in extensions]
        replies = await self._extend_range.each(calls, [*filter(None, old)])
        return [None if reply < 0 else bool(reply) for reply in replies]

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish each (channel, message), all in one round trip."""
        if not messages:
            return
        async with self.redis.pipeline(transaction=False) as pipe:
            for channel, message in messages:
                pipe.publish(channel, message)
            await pipe.execute()

    async def snapshot(self, stream: str, qid: str) -> Snapshot | None:
        """The question's top-k and the stream's state in one round trip; None if the question has
        no range."""
        return (await self.query_view(stream, qid)).snapshot

    async def query_view(self, stream: str, qid: str = "") -> QueryView:
        """All that a query needs in one round trip. qid: '' for the standing question that was set
        last."""
        k = self.keys
        names = [name(stream) for name in (k.cursor, k.tail, k.questions)]
        prefixes = [name(stream, "") for name in (k.scored_range, k.top, k.text)]
        return to_query_view(await self._read_view([*names, *prefixes], [qid]))


def _spans(indices: Sequence[int]) -> list[tuple[int, int]]:
    """Unbroken stretches, each [lo, hi)."""
    if isinstance(indices, range):
        return [(indices.start, indices.stop)] if indices else []
    return [(index, index + 1) for index in indices]
