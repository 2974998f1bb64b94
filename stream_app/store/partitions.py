"""PartitionStore: the epoch, position and topic id of each partition.

The epoch is a fencing token: writes with an older epoch are refused. A position is written last, so
everything before it is in Redis.
"""

from collections.abc import Callable, Sequence

from stream_app.runtime.retry import Health
from stream_app.store.connection import AnyRedis
from stream_app.store.keys import Keys
from stream_app.store.retrying import retried
from stream_app.store.scripts import Call, Script
from stream_app.store.state import (
    ANY_REDIS,
    FencedError,
    LostWritesError,
    PositionUpdate,
    RestartedError,
)

Fence = tuple[str, int]
"""A fencing token: topic/partition and the epoch its owner drew."""


async def check_fence(pipe: AnyRedis, keys: Keys, fence: Fence) -> None:
    """Raise FencedError if the partition, which the transaction watches, has a later owner."""
    partition, epoch = fence
    if int(await pipe.hget(keys.partition(partition), "epoch") or 0) > epoch:
        raise FencedError.of(partition, epoch)


def name_of(partition: str, incarnation: int) -> str:
    """The name of a partition's offsets in Redis: a recreated topic has other offsets, so they have
    another name."""
    return f"{partition}#{incarnation}" if incarnation else partition


def _check_moved(move: PositionUpdate, result: str) -> None:
    """Raise the error of a position that was not moved."""
    match result:
        case "restarted":
            raise RestartedError
        case "fenced":
            raise FencedError.of(move.partition, move.epoch)
        case "elsewhere":
            raise LostWritesError(
                f"{move.partition}: Redis is not where this worker left it; it lost writes, "
                "perhaps in a restart. This worker ends; the next one reads again what is missing."
            )


class PartitionStore:
    """The partitions of all topics. health: see `retrying`."""

    def __init__(self, redis: AnyRedis, keys: Keys, health: Health | None = None) -> None:
        self.redis = redis
        self.keys = keys
        self.health = health
        self._move_position = Script(redis, "move_position.lua")

    @retried
    async def run_id(self) -> str:
        """The id of the running Redis process, which changes at each start."""
        return str((await self.redis.info("server"))["run_id"])

    @retried
    async def draw_epoch(self, partition: str, check: Callable[[], None] = lambda: None) -> int:
        """A new epoch for the partition, larger than any that an earlier owner drew. check: called
        before each try; raises if the partition is no longer this worker's."""

        async def write(pipe: AnyRedis) -> None:
            check()
            pipe.multi()
            pipe.hincrby(self.keys.partition(partition), "epoch", 1)

        (epoch,) = await self.redis.transaction(write, self.keys.partition(partition))
        return int(epoch)

    async def position(self, partition: str) -> tuple[int | None, int]:
        """The partition's first offset that is not in Redis (None: nothing was read), and how often
        its topic was recreated."""
        return (await self.positions([partition]))[0]

    @retried
    async def positions(self, partitions: Sequence[str]) -> list[tuple[int | None, int]]:
        """`position` of several partitions, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for partition in partitions:
                pipe.hmget(self.keys.partition(partition), ["next", "made"])
            replies = await pipe.execute()
        return [(None if next_ is None else int(next_), int(made or 0)) for next_, made in replies]

    @retried
    async def gap(self, partition: str) -> int:
        """Missing offsets before the partition's position that no stream has counted yet."""
        return int(await self.redis.hget(self.keys.partition(partition), "gap") or 0)

    @retried
    async def move(self, moves: Sequence[PositionUpdate], trusted: str = ANY_REDIS) -> None:
        """Move each partition's position: everything before it is in Redis. All in one round trip.
        Raises FencedError if the partition has a later owner, RestartedError if Redis
        is not the `trusted` process, and LostWritesError if the position is not where its owner
        left it: Redis lost that write, and may have lost others."""
        replies = await self._move_position.each([self._call(move, trusted) for move in moves])
        for move, reply in zip(moves, replies, strict=True):
            _check_moved(move, reply["result"])

    def _call(self, move: PositionUpdate, trusted: str) -> Call:
        arguments = {"old": move.old, "new": move.new, "epoch": move.epoch, "gap": move.gap}
        return [self.keys.partition(move.partition)], arguments | {"run_id": trusted}

    @retried
    async def topic_id(self, partition: str) -> str:
        """The id of the topic that the partition's offsets belong to; empty if unknown."""
        return (await self.redis.hget(self.keys.partition(partition), "topic") or b"").decode()

    @retried
    async def note_topic_id(self, partition: str, epoch: int, topic_id: str) -> None:
        """Note the id of the topic that the partition's offsets belong to. Raises FencedError."""
        await self._set(partition, epoch, {"topic": topic_id})

    @retried
    async def reset(self, partition: str, epoch: int, incarnation: int, topic_id: str = "") -> None:
        """Set the partition of a recreated topic to its first offset. incarnation: how often the
        topic was recreated. Raises FencedError."""
        fields: dict[str, int | str] = {"next": 0, "made": incarnation, "gap": 0, "topic": topic_id}
        await self._set(partition, epoch, fields)

    async def _set(self, partition: str, epoch: int, fields: dict[str, int | str]) -> None:
        """Write the fields, unless the partition has an owner of a later epoch."""

        async def write(pipe: AnyRedis) -> None:
            await check_fence(pipe, self.keys, (partition, epoch))
            pipe.multi()
            pipe.hset(self.keys.partition(partition), mapping=fields)

        await self.redis.transaction(write, self.keys.partition(partition))
