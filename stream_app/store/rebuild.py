"""Rebuild: reset streams in Redis, so that workers read them again from Kafka.

Nothing is read here. A stream's log is deleted and its partitions are set back; their next owner
reads them from the start, and the other streams of these partitions skip what they hold.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
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
    """What Kafka has of a partition: its first and its next offset; and how often its topic was
    recreated, by what Redis knows of it."""

    first: int
    next: int
    incarnation: int = 0


Retained = Mapping[str, RetainedOffsets]
"""By topic/partition."""

ReadOffsets = Callable[[], Awaitable[Mapping[str, tuple[int, int]]]]
"""Asks Kafka for the first and the next offset of each topic/partition."""


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """What a rebuild of a stream would do. partitions: those that feed it; missing: offsets
    that were read for it and that Kafka no longer has; offsets: how many will be read again."""

    stream: str
    partitions: tuple[str, ...]
    missing: int
    offsets: int


class RebuildError(RuntimeError):
    """Nothing was rebuilt; the message says why, and what to do."""


class Rebuilt(NamedTuple):
    """What was rebuilt. unread: partitions that feed no stream, and how many of their offsets will
    be read again; retained: what Kafka has."""

    plans: list[RebuildPlan]
    unread: dict[str, int]
    retained: Retained


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition as Redis has it: epoch, position, how often its topic was recreated."""

    epoch: int
    position: int
    incarnation: int


async def partition_states(
    redis: AnyRedis, keys: Keys, partitions: Iterable[str]
) -> dict[str, PartitionState]:
    """The partitions as Redis has them; `redis` may be a transaction that watches them."""
    return {
        name: to_partition_state(await redis.hgetall(keys.partition(name))) for name in partitions
    }


def retained_offsets(
    known: Mapping[str, PartitionState], offsets: Mapping[str, tuple[int, int]]
) -> dict[str, RetainedOffsets]:
    """The offsets that Kafka retains. They must be read after the positions in Redis: then a
    partition that ends before its position is that of a recreated topic."""
    found = dict[str, RetainedOffsets]()
    for name, (first, next_) in offsets.items():
        place = known.get(name, PartitionState(0, 0, 0))
        found[name] = RetainedOffsets(first, next_, place.incarnation + (next_ < place.position))
    return found


async def rebuild(
    store: StreamStore,
    read_offsets: ReadOffsets,
    stream: str | None = None,
    *,
    accept_missing: bool = False,
    on_deleted: Callable[[int], None] = lambda keys: None,
    on_rebuilt: Callable[[RebuildPlan], None] = lambda plan: None,
) -> Rebuilt:
    """Rebuild a stream; None: all streams and partitions, also those of an older schema. It is safe
    beside running workers, because of its order:

    (1) The partitions are read from Kafka, so that nothing changes if it is unreachable.
    (2) Keys of an older schema are deleted, and the schema is checked, before any key is read.
    (3) Positions are read from Redis, and only then offsets from Kafka: workers go on reading, so
        earlier offsets could end before a position, like those of a recreated topic.
    (4) Every stream is planned and checked before any is changed: all of it is done, or nothing.
    (5) Each stream is reset in one step, then the partitions that feed no stream.

    read_offsets: reads them from Kafka. accept_missing: also rebuild streams that Kafka no longer
    has in full.
    Raises RebuildError with the reason if nothing was done, and SchemaError.
    """
    partitions = await read_offsets()
    if stream is None:
        on_deleted(await _delete_unless_used(store))
    await check_schema(store.redis, store.keys)
    known = await partition_states(store.redis, store.keys, partitions)
    retained = retained_offsets(known, await read_offsets())
    plans = await _plans(store, stream, retained)
    if not accept_missing:
        _check_missing(plans)
    unused = unread(known, retained, plans) if stream is None else {}
    names = await find_keys(store, stream)
    for planned in plans:
        await apply(store, planned, retained, names)
        on_rebuilt(planned)
    if unused:
        await set_back(store, unused, retained)
    return Rebuilt(plans, unused, retained)


async def _delete_unless_used(store: StreamStore) -> int:
    """Delete the keys of an older schema; how many there were."""
    noted = await noted_schema(store.redis, store.keys)
    if noted not in (None, SCHEMA) and await store.listening_workers():
        raise RebuildError("workers of another version listen on this Redis: stop them first")
    return await delete_old_schema(store.redis, store.keys)


async def _plans(store: StreamStore, stream: str | None, retained: Retained) -> list[RebuildPlan]:
    """The stream's plan, or those of all streams; a stream that only has questions has none."""
    names = await store.streams() if stream is None else [stream]
    plans = [planned for name in names if (planned := await plan(store, name, retained))]
    if stream is not None and not plans:
        raise RebuildError(
            f"nothing is known of a stream {stream!r}: `xl3m streams` lists them. Where its events "
            "became dead letters, `xl3m rebuild --all` has them read again"
        )
    return plans


def _check_missing(plans: Iterable[RebuildPlan]) -> None:
    for planned in plans:
        if planned.missing:
            raise RebuildError(
                f"stream {planned.stream!r}: Kafka no longer has {planned.missing} of the offsets "
                "it was read from; what was in them would be gone. Nothing was done. --yes goes on "
                "all the same, and counts them as missing"
            )


async def plan(store: StreamStore, stream: str, retained: Retained) -> RebuildPlan | None:
    """What a rebuild of the stream would do; None if nothing is known of it."""
    cursor = (await store.load(stream)).cursor
    feeding = [name for name in retained if await _feeds(store, name, stream, cursor)]
    if not cursor.version and not feeding:
        return None
    missing = _missing(cursor, {name: retained[name].incarnation for name in feeding}, retained)
    offsets = sum(retained[name].next - retained[name].first for name in feeding)
    return RebuildPlan(stream, tuple(feeding), missing, offsets)


async def find_keys(store: StreamStore, stream: str | None = None) -> dict[bytes, list[bytes]]:
    """All keys of the stream, or of every stream, by the part up to the stream's name."""
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
    """Reset a stream in one step: (1) its partitions get a new epoch, which fences their owners,
    and stand at the first offset that Kafka has; (2) log, tail and all scores are deleted; (3) the
    cursor keeps what fences older owners, and counts the missing offsets; (4) questions stay, with
    nothing scored. Then (5) workers are notified: the owner ends, and its successor reads again.

    It must be one step. An owner that saw its partition set back while the stream was still there
    would skip all of it; one that saw the stream deleted would go on in its middle.
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
    """Partitions that were read though they feed no stream of the plans, for example because all
    their events were dead letters; and how many offsets each has."""
    planned = {name for each in plans for name in each.partitions}
    return {
        name: held.next - held.first
        for name, held in retained.items()
        if name not in planned and known[name].position > held.first
    }


async def set_back(store: StreamStore, partitions: Iterable[str], retained: Retained) -> None:
    """Set partitions that feed no stream to the first offset that Kafka has, all in one step, with
    a new epoch, which fences their owners. Then workers are notified."""
    keys, names = store.keys, list(partitions)

    async def write(pipe: AnyRedis) -> None:
        known = await partition_states(pipe, keys, names)
        pipe.multi()
        again = {name: _set_back(known[name], retained[name]) for name in names}
        _write_places(pipe, keys, again)

    await store.redis.transaction(write, *map(keys.partition, names))
    await store.redis.publish(keys.question_channel(), b"")


async def delete_old_schema(redis: AnyRedis, keys: Keys) -> int:
    """Delete all keys of an older schema under this prefix, questions included; how many there
    were. Raises SchemaError if the schema is a newer one."""
    noted = await noted_schema(redis, keys)
    if noted is None or noted >= SCHEMA:
        await check_schema(redis, keys)
        return 0
    count = 0
    async for some in _batches(redis.scan_iter(f"{keys.of_schema(noted)}:*", BATCH_SIZE)):
        count += await redis.unlink(*some)
    await redis.delete(keys.schema())  # last: if interrupted, the next call goes on
    await ensure_schema(redis, keys)
    return count


def _stem(name: bytes) -> bytes:
    """What all keys of a stream begin with: a stream's name in a key has no brace of its own."""
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
    """The partition at the first offset that Kafka has; its owner may have noticed meanwhile that
    the topic was recreated."""
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
    """Delete all keys of the stream but its cursor, its questions and their ranges. left: keys that
    were found by name, in case there are more than expected."""
    ranges = {keys.scored_range(stream, qid) for qid in asked}
    names = {name for qid in asked for name in keys.question_keys(stream, qid, head)}
    names |= {keys.log(stream), keys.tail(stream), *(name.decode() for name in left)}
    pipe.delete(*(names - ranges - {keys.cursor(stream), keys.questions(stream)}))


def _emptied(
    cursor: Cursor, again: Mapping[str, PartitionState], retained: Retained
) -> dict[str, int]:
    """The cursor of a stream of which nothing is read; its version increases as in any commit."""
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
    """Offsets that were read for the stream and that Kafka no longer has. made: how often the topic
    of each partition was recreated."""
    now = {name_of(partition, times): partition for partition, times in made.items()}
    missing = sum(next_ for name, next_ in cursor.next.items() if name not in now)
    for name, partition in now.items():
        start = retained[partition].first
        missing += min(start, cursor.next.get(name, start))
    return missing
