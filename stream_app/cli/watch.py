"""`xl3m watch`: print a question's running top-k segments whenever they change."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import click

from stream_app.cli.display import known_names, show_top
from stream_app.cli.output import echo, echo_json
from stream_app.client import client
from stream_app.events import question_text, stream_name
from stream_app.runtime.escape import escape_name
from stream_app.settings import Settings
from stream_app.store.connection import open_redis
from stream_app.store.state import current_question
from stream_app.store.store import StreamStore
from stream_app.store.subscription import retry_briefly


async def watch(
    settings: Settings, stream: str, question: str | None, as_json: bool, replace: bool = False
) -> None:
    """Set the question, if one is given, then print its top-k at every change, for ever.

    replace: the question ends the stream's other standing questions. A stream that has no segments
    yet is waited for, which is said on standard error.
    """
    stream_name(stream)
    question = question_text(question)
    async with open_redis(settings.redis) as redis:
        store = StreamStore.from_settings(settings, redis)
        await client.ensure_worker(store)
        stream = await client.resolve(store, stream)
        updates = client.updates(store, stream)
        await anext(updates)  # subscribed: from here on no update is missed
        await _explain_waiting(store, stream, question)
        if question:
            await client.set_question(settings, stream, question, replace)
        await _show(store, stream, question, as_json)
        await _follow(store, stream, question, updates, as_json)


async def _follow(
    store: StreamStore,
    stream: str,
    question: str | None,
    updates: AsyncIterator[dict[str, Any]],
    as_json: bool,
) -> None:
    """Show every change: of the given question, or of the standing question without one.

    If another client ends the given question, the standing question is shown from then on.
    """
    was_standing = False
    async for update in updates:
        if "error" in update:
            if update["question"] == question:
                raise click.UsageError(update["error"])
            continue
        if question:
            records = await retry_briefly(lambda: store.questions.load(stream))
            standing = {record.question for record in records.values() if record.is_standing}
            if was_standing and question not in standing:
                echo("another client ended this question: showing the standing one", err=True)
                question = None
            was_standing = question in standing
        if question in (None, update.get("question")):
            await retry_briefly(partial(_show, store, stream, question, as_json))


async def _explain_waiting(store: StreamStore, stream: str, question: str | None) -> None:
    """Say on standard error what is missing: a mistyped name would otherwise wait silently."""
    name = escape_name(stream)
    if (await store.load(stream)).tail.end == 0:
        names = [other for other in await store.streams() if other != stream]
        then = "the question is set for when it comes" if question else "waiting for it"
        echo(f"no stream {name} yet: {then}; {known_names(names, stream)}", err=True)
    elif not question and current_question(await store.questions.load(stream)) is None:
        echo(f"stream {name} has no standing question: waiting for one; set one with -q", err=True)


async def _show(store: StreamStore, stream: str, question: str | None, as_json: bool) -> None:
    """Print the top-k of the question, or of the standing question if none is given."""
    shown = question or current_question(await store.questions.load(stream))
    top = await client.top(store, stream, shown) if shown else None
    if top and as_json:
        echo_json(top)
    elif top:
        show_top(top)
