"""Rebuild: resets streams in Redis, so that workers read them again from Kafka.

A stream's log is deleted and its partitions are set back. Their next owner reads them from the
start; the other streams of these partitions skip what they hold already.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from stream_app.store.keys import SCHEMA
from stream_app.store.rebuild_apply import apply, find_keys, set_back
from stream_app.store.rebuild_plan import (
    RebuildPlan,
    Retained,
    partition_states,
    plan,
    retained_offsets,
    unread,
)
from stream_app.store.schema import check_schema, delete_old_schema, noted_schema
from stream_app.store.store import StreamStore

ReadOffsets = Callable[[], Awaitable[Mapping[str, tuple[int, int]]]]
"""Reads the first and the next offset of each topic/partition from Kafka."""


class RebuildError(RuntimeError):
    """Nothing was rebuilt; the message says why, and what to do."""


class Rebuilt(NamedTuple):
    """What was rebuilt. unread: partitions that feed no stream, and how many of their offsets will
    be read again; retained: the offsets in Kafka."""

    plans: list[RebuildPlan]
    unread: dict[str, int]
    retained: Retained


async def rebuild(
    store: StreamStore,
    read_offsets: ReadOffsets,
    stream: str | None = None,
    *,
    accept_missing: bool = False,
    on_deleted: Callable[[int], None] = lambda keys: None,
    on_rebuilt: Callable[[RebuildPlan], None] = lambda plan: None,
) -> Rebuilt:
    """Rebuild a stream; None: all streams and partitions, also those of an older schema. Workers
    may run meanwhile, because of the order of the steps:

    (1) Read from Kafka which partitions exist: nothing changes if Kafka is unavailable.
    (2) Delete the keys of an older schema, and check the schema, before any key is read.
    (3) Read the positions from Redis, and only then the offsets from Kafka. Workers continue to
        read: offsets from step 1 could end before a position, as those of a recreated topic do.
    (4) Plan and check every stream before any is changed: all of them are rebuilt, or none.
    (5) Reset each stream in one transaction, then the partitions that feed no stream.

    accept_missing: also rebuild streams of which Kafka no longer has all offsets. Raises
    RebuildError with the reason if nothing was done, and SchemaError.
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
    """Delete the keys of an older schema; returns their number."""
    noted = await noted_schema(store.redis, store.keys)
    if noted not in (None, SCHEMA) and await store.listening_workers():
        raise RebuildError("workers of another version listen on this Redis: stop them first")
    return await delete_old_schema(store.redis, store.keys)


async def _plans(store: StreamStore, stream: str | None, retained: Retained) -> list[RebuildPlan]:
    """The stream's plan, or those of all streams. A stream without events has no plan."""
    names = await store.streams() if stream is None else [stream]
    plans = [planned for name in names if (planned := await plan(store, name, retained))]
    if stream is not None and not plans:
        raise RebuildError(
            f"stream {stream!r} is unknown: `xl3m streams` lists all streams. If its events became "
            "dead letters, `xl3m rebuild --all` reads them again"
        )
    return plans


def _check_missing(plans: Iterable[RebuildPlan]) -> None:
    for planned in plans:
        if planned.missing:
            raise RebuildError(
                f"stream {planned.stream!r}: Kafka no longer has {planned.missing} of the offsets "
                "it was read from, so their text would be lost. Nothing was done. --yes rebuilds "
                "it, and counts these offsets as missing"
            )
