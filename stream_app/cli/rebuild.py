"""`xl3m rebuild`: delete streams' state in Redis and have workers read them again from Kafka.

Plans all first, refuses what would lose input, and reports what it did. The work is that of
`store.rebuild`.
"""

from collections.abc import Mapping

import click

from stream_app.cli.output import echo
from stream_app.client import client
from stream_app.kafka.topics import retained
from stream_app.runtime.escape import escape_name
from stream_app.settings import Settings
from stream_app.store import rebuild
from stream_app.store.connection import open_redis
from stream_app.store.keys import SCHEMA
from stream_app.store.rebuild import RebuildPlan, Retained
from stream_app.store.schema import check_schema, noted_schema
from stream_app.store.store import StreamStore

Plans = Mapping[str, RebuildPlan]


async def run(settings: Settings, stream: str | None, yes: bool) -> None:
    """Begin the stream anew, or all streams and all partitions; nothing is touched if one of them
    would lose what Kafka no longer has, unless that is said to be right."""
    async with open_redis(settings.redis) as redis:
        partitions = await retained(settings)
        store = StreamStore.from_settings(settings, redis)
        if stream is None:
            await _throw_away_older(store)
        await check_schema(redis, store.keys)
        known = await rebuild.partition_states(redis, store.keys, partitions)
        held = rebuild.retained_offsets(known, await retained(settings))
        if stream is None:
            plans = await _plans(store, held, yes)
            unread = rebuild.unread(known, held, plans.values())
        else:
            stream = await client.resolve(store, stream)
            plans, unread = {stream: await _plan(store, stream, held, yes)}, {}
        await _begin_anew(store, stream, plans, held)
        if unread:
            await rebuild.set_back(store, unread, held)
        _say_what_was_done(plans, unread, held)
        if plans or unread:
            await _say_who_reads(store)


async def _plans(store: StreamStore, held: Retained, yes: bool) -> dict[str, RebuildPlan]:
    """Of all streams there are; some may have a question only: nothing was ever read for them."""
    found = {name: await rebuild.plan(store, name, held) for name in await store.streams()}
    return {name: _allowed(name, planned, yes) for name, planned in found.items() if planned}


async def _plan(store: StreamStore, stream: str, held: Retained, yes: bool) -> RebuildPlan:
    if planned := await rebuild.plan(store, stream, held):
        return _allowed(stream, planned, yes)
    raise click.UsageError(
        f"nothing is known of a stream {stream!r}: `xl3m streams` lists them. Where its events "
        "became dead letters, `xl3m rebuild --all` has them read again"
    )


def _allowed(stream: str, planned: RebuildPlan, yes: bool) -> RebuildPlan:
    if planned.missing and not yes:
        raise click.UsageError(
            f"stream {stream!r}: Kafka no longer has {planned.missing} of the offsets it was read "
            "from; what was in them would be gone. Nothing was done. --yes goes on all the same, "
            "and counts them as missing"
        )
    return planned


async def _begin_anew(store: StreamStore, stream: str | None, plans: Plans, held: Retained) -> None:
    left = await rebuild.find_keys(store, stream)
    for name, planned in plans.items():
        await rebuild.apply(store, planned, held, left)
        missing = f", {planned.missing} are missing" if planned.missing else ""
        of = ", ".join(planned.partitions) or "no partition"
        echo(f"{escape_name(name)}: {planned.offsets} offsets of {of} will be read again{missing}")


def _say_what_was_done(plans: Plans, unread: Mapping[str, int], held: Retained) -> None:
    """What streams alone do not tell: partitions of no stream, and what all of it comes to."""
    if unread:
        of = ", ".join(sorted(unread))
        echo(f"{sum(unread.values())} offsets of {of}, which fed no stream, will be read again")
    if not plans and not unread:
        echo("There is nothing to rebuild: nothing was read yet.")
    if len(plans) + bool(unread) > 1:
        partitions = {name for planned in plans.values() for name in planned.partitions} | set(
            unread
        )
        offsets = sum(held[name].next - held[name].first for name in partitions)
        echo(f"In all {offsets} offsets of {len(partitions)} partitions will be read again.")


async def _throw_away_older(store: StreamStore) -> None:
    noted = await noted_schema(store.redis, store.keys)
    if noted not in (None, SCHEMA) and await client.workers(store):
        raise click.UsageError("workers of another version listen on this Redis: stop them first")
    if count := await rebuild.delete_old_schema(store.redis, store.keys):
        echo(f"{count} keys of an older version are gone: set the standing questions again")


async def _say_who_reads(store: StreamStore) -> None:
    if listening := await client.workers(store):
        echo(
            f"Of the workers that listen ({listening}), those that own these partitions end: what "
            "starts them again has them read."
        )
    else:
        echo("No worker listens: the next one that starts reads.")
