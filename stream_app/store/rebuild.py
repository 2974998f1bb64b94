"""Rebuild: a stream's state is begun anew, to be read again from Kafka as far as that has it.

Nothing is read here. A stream's log goes and its partitions are set back; their next owner reads
them from the start, and the other streams of these partitions skip what they hold. Knows the
layout in Redis and the offsets in Kafka; no text.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from stream_app.store.codec import to_cursor, to_question
from stream_app.store.connection import AnyRedis
from stream_app.store.keys import SCHEMA, Keys
from stream_app.store.partitions import name_of
from stream_app.store.schema import check_schema, ensure_schema, noted_schema
from stream_app.store.state import Cursor
from stream_app.store.store import StreamStore

BATCH_SIZE = 1000


class RetainedOffsets(NamedTuple):
    """What Kafka has of a partition: the first offset, and the one that comes next; and how often
    its topic was made again, by what Redis knows of it."""

    first: int
    next: int
    incarnation: int = 0


Retained = Mapping[str, RetainedOffsets]
"""By topic/partition."""


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """What a rebuild of a stream comes to. missing: offsets up to its last one that Kafka no longer
    has; offsets: how many will be read again for it."""

    stream: str
    partitions: tuple[str, ...]
    missing: int
    offsets: int


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition as Redis has it: epoch, position, how often its topic was made again."""

    epoch: int
    position: int
    incarnation: int


async def partition_states(
    redis: AnyRedis, keys: Keys, partitions: Iterable[str]
) -> dict[str, PartitionState]:
    """The partitions, as Redis has them now; `redis` may be a transaction that watches them."""
    return {
        name: to_partition_state(await redis.hgetall(keys.partition(name))) for name in partitions
    }


def retained_offsets(
    known: Mapping[str, PartitionState], offsets: Mapping[str, tuple[int, int]]
) -> dict[str, RetainedOffsets]:
    """What Kafka has, if it was asked after Redis: workers go on, and a partition that ends before
    what had been read of it by then is that of a topic made again."""
    found = dict[str, RetainedOffsets]()
    for name, (first, next_) in offsets.items():
        place = known.get(name, PartitionState(0, 0, 0))
        found[name] = RetainedOffsets(first, next_, place.incarnation + (next_ < place.position))
    return found


async def plan(store: StreamStore, stream: str, retained: Retained) -> RebuildPlan | None:
    """What would become of the stream; None if nothing is known of it."""
    cursor = (await store.load(stream)).cursor
    feeding = [name for name in retained if await _feeds(store, name, stream, cursor)]
    if not cursor.version and not feeding:
        return None
    missing = _missing(cursor, {name: retained[name].incarnation for name in feeding}, retained)
    offsets = sum(retained[name].next - retained[name].first for name in feeding)
    return RebuildPlan(stream, tuple(feeding), missing, offsets)


async def find_keys(store: StreamStore, stream: str | None = None) -> dict[bytes, list[bytes]]:
    """All names there are of the stream, or of every stream, by what they begin with."""
    names = dict[bytes, list[bytes]]()
    async for name in store.redis.scan_iter(
        store.keys.of_stream(stream) if stream else store.keys.of_streams(), BATCH_SIZE
    ):
        names.setdefault(_stem(name), []).append(name)
    return names


async def apply(
    store: StreamStore,
    planned: RebuildPlan,
    retained: Retained,
    names: Mapping[bytes, Sequence[bytes]],
) -> None:
    """In one step: (1) the partitions get a new epoch, so that who owns them now is refused, and
    stand at the first offset that Kafka has; (2) log, tail and all scores go; (3) the cursor
    keeps what fences older owners, and counts what is missing; (4) questions stay, with nothing
    scored. Then (5) workers are told, so that the owner ends and its successor reads again.

    None of it may be seen without the rest: an owner that saw a partition set back and the stream
    still there would skip all of it; one that saw the stream gone would go on in its middle.
    """
    keys, stream, feeding = store.keys, planned.stream, planned.partitions
    cursor_key, asked_key = keys.cursor(stream), keys.questions(stream)
    left = names.get(_stem(keys.of_stream(stream).encode()), ())

    async def write(pipe: AnyRedis) -> None:
        cursor = to_cursor(await pipe.hgetall(cursor_key))
        asked = to_question(await pipe.hgetall(asked_key))
        known = await partition_states(pipe, keys, feeding)
        again = {name: _set_back(place, retained[name]) for name, place in known.items()}
        pipe.multi()
        _write_places(pipe, keys, again)
        _drop(pipe, keys, stream, cursor.head, asked, left)
        pipe.delete(cursor_key)
        pipe.hset(cursor_key, mapping=_emptied(cursor, again, retained))
        for qid, each in asked.items():
            scored = keys.scored_range(stream, qid)
            pipe.hset(scored, mapping={"lo": 0, "hi": 0, "skipped": 0})
            pipe.hincrby(scored, "rebuilt", 1)
            if each.expires_at:
                pipe.expireat(scored, int(each.expires_at))

    watched = [cursor_key, asked_key, *map(keys.partition, feeding)]
    await store.redis.transaction(write, *watched)
    await store.redis.publish(keys.question_channel(), stream.encode())


def unread(
    known: Mapping[str, PartitionState], retained: Retained, plans: Iterable[RebuildPlan]
) -> dict[str, int]:
    """Partitions that stand behind their first offset though no stream of the plans is read from
    them, say because all their events were dead letters; and how many offsets each has."""
    planned = {name for each in plans for name in each.partitions}
    return {
        name: held.next - held.first
        for name, held in retained.items()
        if name not in planned and known[name].position > held.first
    }


async def set_back(store: StreamStore, partitions: Iterable[str], retained: Retained) -> None:
    """Partitions of no stream stand at the first offset that Kafka has, all of them in one step,
    with a new epoch, so that who owns them now is refused. Then workers are told to look."""
    keys, names = store.keys, list(partitions)

    async def write(pipe: AnyRedis) -> None:
        known = await partition_states(pipe, keys, names)
        pipe.multi()
        again = {name: _set_back(known[name], retained[name]) for name in names}
        _write_places(pipe, keys, again)

    await store.redis.transaction(write, *map(keys.partition, names))
    await store.redis.publish(keys.question_channel(), b"")


async def delete_old_schema(redis: AnyRedis, keys: Keys) -> int:
    """All keys of an older schema go, those of the prefix it has and no other; how many there
    were. Its questions are among them. Raises SchemaError if the schema is a newer one."""
    noted = await noted_schema(redis, keys)
    if noted is None or noted >= SCHEMA:
        await check_schema(redis, keys)
        return 0
    count = 0
    async for some in _batches(redis.scan_iter(f"{keys.of_schema(noted)}:*", BATCH_SIZE)):
        count += await redis.unlink(*some)
    await redis.delete(keys.schema())  # last: cut short, all of it is done again
    await ensure_schema(redis, keys)
    return count


def _stem(name: bytes) -> bytes:
    """What all names of a stream begin with: no stream's has a brace of its own."""
    return name.partition(b"}")[0]


def to_partition_state(fields: Mapping[bytes, bytes]) -> PartitionState:
    """A partition's hash."""
    return PartitionState(*(int(fields.get(name, 0)) for name in (b"epoch", b"next", b"made")))


async def _feeds(store: StreamStore, partition: str, stream: str, cursor: Cursor) -> bool:
    """Whether the partition is one of the stream's."""
    known = any(name.split("#")[0] == partition for name in cursor.next)
    return known or bool(await store.redis.sismember(store.keys.streams(partition), stream))


async def _batches(names: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    some = list[bytes]()
    async for name in names:
        some.append(name)
        if len(some) == BATCH_SIZE:
            yield some
            some = []
    if some:
        yield some


def _set_back(place: PartitionState, held: RetainedOffsets) -> PartitionState:
    """Its next owner may have seen meanwhile that the topic was made again."""
    return PartitionState(place.epoch + 1, held.first, max(place.incarnation, held.incarnation))


def _write_places(pipe: AnyRedis, keys: Keys, again: Mapping[str, PartitionState]) -> None:
    for name, place in again.items():
        fields = {"epoch": place.epoch, "next": place.position, "made": place.incarnation, "gap": 0}
        pipe.hset(keys.partition(name), mapping=fields)


def _drop(
    pipe: AnyRedis,
    keys: Keys,
    stream: str,
    head: int,
    asked: Mapping[str, Any],
    left: Sequence[bytes],
) -> None:
    """All that the stream has but its cursor, its questions and their ranges. left: what was found
    by name, should there be more than there ought to be."""
    ranges = {keys.scored_range(stream, qid) for qid in asked}
    names = {name for qid in asked for name in keys.question_keys(stream, qid, head)}
    names |= {keys.log(stream), keys.tail(stream), *(name.decode() for name in left)}
    pipe.delete(*(names - ranges - {keys.cursor(stream), keys.questions(stream)}))


def _emptied(
    cursor: Cursor, again: Mapping[str, PartitionState], retained: Retained
) -> dict[str, int]:
    """The cursor of a stream of which nothing is read; its version rises as in any other step."""
    fields = {
        "version": cursor.version + 1,
        "questions": cursor.questions + 1,
        "rebuilt": cursor.rebuilt + 1,
        "gaps": _missing(
            cursor, {name: place.incarnation for name, place in again.items()}, retained
        ),
    }
    for name, place in again.items():
        fields[f"epoch:{name_of(name, place.incarnation)}"] = place.epoch
    return fields


def _missing(cursor: Cursor, made: Mapping[str, int], retained: Retained) -> int:
    """Offsets before the stream's last ones that Kafka no longer has. made: of each partition, how
    often its topic was made again."""
    now = {name_of(partition, times): partition for partition, times in made.items()}
    missing = sum(next_ for name, next_ in cursor.next.items() if name not in now)
    for name, partition in now.items():
        start = retained[partition].first
        missing += min(start, cursor.next.get(name, start))
    return missing
