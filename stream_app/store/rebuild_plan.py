"""RebuildPlan: what a rebuild of a stream would do, by what Redis and Kafka hold of its partitions.

Nothing is changed here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from stream_app.store.connection import AnyRedis
from stream_app.store.keys import Keys
from stream_app.store.partitions import name_of
from stream_app.store.state import Cursor
from stream_app.store.store import StreamStore


class RetainedOffsets(NamedTuple):
    """The offsets of a partition in Kafka: the first and the next one. incarnation: how often its
    topic was recreated, as far as Redis shows."""

    first: int
    next: int
    incarnation: int = 0


Retained = Mapping[str, RetainedOffsets]
"""By topic/partition."""


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """What a rebuild of a stream would do. partitions: those that feed it; missing: offsets that
    were read for it and that Kafka no longer has; offsets: how many will be read again."""

    stream: str
    partitions: tuple[str, ...]
    missing: int
    offsets: int


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition in Redis: its epoch, its position, and how often its topic was recreated."""

    epoch: int
    position: int
    incarnation: int


async def partition_states(
    redis: AnyRedis, keys: Keys, partitions: Iterable[str]
) -> dict[str, PartitionState]:
    """The partitions in Redis; `redis` may be a transaction that watches them."""
    return {
        name: _to_partition_state(await redis.hgetall(keys.partition(name))) for name in partitions
    }


def retained_offsets(
    known: Mapping[str, PartitionState], offsets: Mapping[str, tuple[int, int]]
) -> dict[str, RetainedOffsets]:
    """The offsets in Kafka, with incarnations. `offsets` must have been read after `known`: then a
    partition that ends before its position in Redis belongs to a recreated topic."""
    retained = dict[str, RetainedOffsets]()
    for name, (first, next_) in offsets.items():
        state = known.get(name, PartitionState(0, 0, 0))
        is_recreated = next_ < state.position
        retained[name] = RetainedOffsets(first, next_, state.incarnation + is_recreated)
    return retained


async def plan(store: StreamStore, stream: str, retained: Retained) -> RebuildPlan | None:
    """What a rebuild of the stream would do; None if the stream is unknown."""
    cursor = (await store.load(stream)).cursor
    feeding = [name for name in retained if await _feeds(store, name, stream, cursor)]
    if not cursor.version and not feeding:
        return None
    incarnations = {name: retained[name].incarnation for name in feeding}
    missing = missing_offsets(cursor, incarnations, retained)
    offsets = sum(retained[name].next - retained[name].first for name in feeding)
    return RebuildPlan(stream, tuple(feeding), missing, offsets)


def unread(
    known: Mapping[str, PartitionState], retained: Retained, plans: Iterable[RebuildPlan]
) -> dict[str, int]:
    """Partitions that were read but feed no stream of the plans, for example because all their
    events were dead letters; and how many offsets each has."""
    in_plans = {name for planned in plans for name in planned.partitions}
    return {
        name: offsets.next - offsets.first
        for name, offsets in retained.items()
        if name not in in_plans and known[name].position > offsets.first
    }


def missing_offsets(cursor: Cursor, incarnations: Mapping[str, int], retained: Retained) -> int:
    """How many offsets were read for the stream and are no longer in Kafka. incarnations: by
    topic/partition, how often its topic was recreated."""
    current = {name_of(partition, times): partition for partition, times in incarnations.items()}
    missing = sum(next_ for name, next_ in cursor.next.items() if name not in current)
    for name, partition in current.items():
        first = retained[partition].first
        missing += min(first, cursor.next.get(name, first))
    return missing


async def _feeds(store: StreamStore, partition: str, stream: str, cursor: Cursor) -> bool:
    """Whether the stream has events from the partition."""
    was_read = any(name.split("#")[0] == partition for name in cursor.next)
    return was_read or bool(await store.redis.sismember(store.keys.streams(partition), stream))


def _to_partition_state(fields: Mapping[bytes, bytes]) -> PartitionState:
    """From a partition's hash."""
    return PartitionState(*(int(fields.get(name, 0)) for name in (b"epoch", b"next", b"made")))
