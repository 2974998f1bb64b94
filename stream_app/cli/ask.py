"""What the commands that talk to a running system do: feed, ask, watch, streams.

Reads and prints; the work is the client's.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any

import click

from stream_app.cli.display import known_names, show_answer, show_stream, show_top
from stream_app.cli.output import echo, echo_json
from stream_app.cli.progress import Progress
from stream_app.client import client
from stream_app.events import question_text, stream_name
from stream_app.monitoring.memory import memory_usage
from stream_app.runtime.escape import escape_name
from stream_app.settings import Settings
from stream_app.store.state import current_question
from stream_app.store.store import StreamStore
from xl3m_core import Answer

FIELDS = {field.name for field in fields(Answer)}


async def ask(
    settings: Settings,
    stream: str,
    question: str | None,
    as_json: bool,
    shows_progress: bool = False,
) -> bool:
    """Print the answer as it comes, then what it rests on; False if there is none."""
    began, answer = time.perf_counter(), dict[str, Any](error="no answer came")
    stream_name(stream)
    async with client.open_redis(settings.redis) as redis:
        store = client.store_of(settings, redis)
        stream = await client.resolve(store, stream)
        progress = Progress(store, stream, question_text(question))
        async with progress.shown(shows_progress):
            async for message in client.ask(
                store, stream, question, settings.query_deadline_seconds
            ):
                await progress.stop()
                if message.get("type") == "answer":
                    answer = message
                elif not as_json:
                    echo(message.get("text", ""), nl=False)
    answer = {name: value for name, value in answer.items() if name in FIELDS}
    if as_json:
        echo_json(answer)
    else:
        show_answer(answer, settings.query_deadline_seconds, time.perf_counter() - began)
    return "error" not in answer


async def watch(
    settings: Settings, stream: str, question: str | None, as_json: bool, replace: bool = False
) -> None:
    """Set the question beside the stream's others, or in their place, then print its top-k whenever
    it changed. A stream of which there is nothing yet is waited for, and that is said."""
    stream_name(stream)
    question = question_text(question)
    async with client.open_redis(settings.redis) as redis:
        store = client.store_of(settings, redis)
        await client.ensure_worker(store)
        stream = await client.resolve(store, stream)
        updates = client.updates(store, stream)
        await anext(updates)
        await _say_what_is_waited_for(store, stream, question)
        if question:
            await set_question(settings, stream, question, replace)
        await _show(store, stream, question, as_json)
        await _follow(store, stream, question, updates, as_json)


async def _follow(
    store: StreamStore,
    stream: str,
    question: str | None,
    updates: AsyncIterator[dict[str, Any]],
    as_json: bool,
) -> None:
    """Show what changed, of the question alone if one is given; the current one, should somebody
    end that."""
    stood = False
    async for update in updates:
        if "error" in update:
            if update["question"] == question:
                raise click.UsageError(update["error"])
            continue
        if question:
            current = {
                a.question for a in (await store.questions(stream)).values() if not a.expires_at
            }
            if stood and question not in current:
                echo("the question was ended by somebody else: showing the current one", err=True)
                question = None
            stood = question in current
        if question in (None, update.get("question")):
            await _show(store, stream, question, as_json)


async def _say_what_is_waited_for(store: StreamStore, stream: str, question: str | None) -> None:
    """On standard error: whoever mistyped a name would else wait for ever without a word."""
    name = escape_name(stream)
    if (await store.load(stream)).tail.end == 0:
        names = [other for other in await store.streams() if other != stream]
        then = "the question is set for when it comes" if question else "waiting for it"
        echo(f"no stream {name} yet: {then}; {known_names(names, stream)}", err=True)
    elif not question and current_question(await store.questions(stream)) is None:
        echo(f"stream {name} has no current question: waiting for one; -q sets one", err=True)


async def _show(store: StreamStore, stream: str, question: str | None, as_json: bool) -> None:
    """What is known for the question or, if none is given, for the current one."""
    asked = question or current_question(await store.questions(stream))
    seen = await client.top(store, stream, asked) if asked else None
    if seen and as_json:
        echo_json(seen)
    elif seen:
        show_top(seen)


async def set_question(
    settings: Settings, stream: str, question: str, replace: bool = False
) -> None:
    """Make it a current question of the stream, or the only one, through the questions topic."""
    from stream_app.events import encode
    from stream_app.kafka.producer import open_producer
    from stream_app.kafka.topics import ensure_topics

    await ensure_topics(settings)
    async with open_producer(settings) as producer:
        value = encode({"question": question, "add": not replace})
        await producer.send_and_wait(settings.questions_topic, value, key=stream.encode())


async def streams(settings: Settings, as_json: bool, memory: bool = False) -> None:
    """One line a stream; memory: with what its keys take in Redis."""
    async with client.open_redis(settings.redis) as redis:
        store = client.store_of(settings, redis)
        for stream in await store.streams():
            known = await client.describe(store, stream)
            if memory:
                known["bytes"], _ = await memory_usage(store, stream)
            echo_json(known) if as_json else show_stream(known)
