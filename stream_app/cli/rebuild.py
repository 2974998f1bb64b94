"""`xl3m rebuild`: resets streams so that workers read them again from Kafka, and says what it did.

The work is done by `store.rebuild`.
"""

from functools import partial

import click

from stream_app.cli.output import echo
from stream_app.client import client
from stream_app.kafka.topics import retained
from stream_app.runtime.escape import escape_name
from stream_app.settings import Settings
from stream_app.store.connection import open_redis
from stream_app.store.rebuild import RebuildError, Rebuilt, rebuild
from stream_app.store.rebuild_plan import RebuildPlan
from stream_app.store.store import StreamStore


async def run(settings: Settings, stream: str | None, yes: bool) -> None:
    """Rebuild the stream; None: all streams and partitions. yes: also where Kafka no longer has all
    that was read; without it, nothing is done then."""
    async with open_redis(settings.redis) as redis:
        store = StreamStore.from_settings(settings, redis)
        try:
            rebuilt = await rebuild(
                store,
                partial(retained, settings),
                await client.resolve(store, stream) if stream is not None else None,
                accept_missing=yes,
                on_deleted=_say_deleted,
                on_rebuilt=_say_rebuilt,
            )
        except RebuildError as error:
            raise click.UsageError(str(error)) from None
        _say_totals(rebuilt)
        if rebuilt.plans or rebuilt.unread:
            await _say_who_reads(store)


def _say_deleted(keys: int) -> None:
    if keys:
        echo(f"{keys} keys of an older version are gone: set the standing questions again")


def _say_rebuilt(plan: RebuildPlan) -> None:
    missing = f", {plan.missing} are missing" if plan.missing else ""
    of = ", ".join(plan.partitions) or "no partition"
    echo(f"{escape_name(plan.stream)}: {plan.offsets} offsets of {of} will be read again{missing}")


def _say_totals(rebuilt: Rebuilt) -> None:
    """Say which partitions feed no stream, and how much is read again in all."""
    plans, unread, retained = rebuilt
    if unread:
        of = ", ".join(sorted(unread))
        echo(f"{sum(unread.values())} offsets of {of}, which fed no stream, will be read again")
    if not plans and not unread:
        echo("There is nothing to rebuild: nothing was read yet.")
    if len(plans) + bool(unread) > 1:
        partitions = {name for planned in plans for name in planned.partitions} | set(unread)
        offsets = sum(retained[name].next - retained[name].first for name in partitions)
        echo(f"In all {offsets} offsets of {len(partitions)} partitions will be read again.")


async def _say_who_reads(store: StreamStore) -> None:
    if listening := await client.workers(store):
        echo(
            f"Of the workers that listen ({listening}), those that own these partitions end: what "
            "starts them again has them read."
        )
    else:
        echo("No worker listens: the next one that starts reads.")
