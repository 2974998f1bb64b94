"""What the commands that talk to a running system do: feed, ask, watch, streams, rebuild.

Reads and prints; the work is the client's.
"""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click
from redis.asyncio import Redis

from stream_app import client
from stream_app.events import question_text, stream_name
from stream_app.keys import SCHEMA
from stream_app.schema import check_schema, noted_schema
from stream_app.settings import Settings
from stream_app.state import current_question
from stream_app.store import StreamStore
from stream_app.terminal import in_line, say, say_json, shown
from stream_app.weights import weight
from xl3m_core import Answer

if TYPE_CHECKING:
    from stream_app.rebuild import Rebuilding

WIDTH = 100
FIELDS = {field.name for field in fields(Answer)}


def _store(settings: Settings, redis: Redis) -> StreamStore:
    return StreamStore(redis, settings.log_segments, settings.log_bytes)


async def ask(settings: Settings, stream: str, question: str | None, as_json: bool) -> bool:
    """Print the answer as it comes, then what it rests on; False if there is none."""
    answer: dict[str, Any] = {"error": "no answer came"}
    stream_name(stream)
    async with client.connected(settings.redis) as redis:
        async for message in client.ask(redis, stream, question, settings.query_deadline):
            if message.get("type") == "answer":
                answer = message
            elif not as_json:
                say(message.get("text", ""), nl=False)
    answer = {name: value for name, value in answer.items() if name in FIELDS}
    if as_json:
        say_json(answer)
    else:
        show_answer(answer)
    return "error" not in answer


def show_answer(answer: dict[str, Any]) -> None:
    """What the answer, already printed, rests on."""
    if "error" in answer:
        say(f"no answer: {answer['error']}", err=True)
        return
    say(
        f"\n\n  certainty {answer['certainty']:.3f} nats   coverage {answer['coverage']:.1%}"
        f"   as of {answer['as_of'] or 'the end'}"
    )
    for evidence in answer["evidence"]:
        show_segment(evidence)
    steps = "   ".join(f"{step} {seconds:.3f} s" for step, seconds in answer["timings"].items())
    say(f"  {steps}")


def show_segment(segment: dict[str, Any]) -> None:
    """One line: index, certainty, and as much of the text as fits."""
    text = " | ".join(shown(segment["text"]).split("\n")).strip(" |")
    short = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    say(f"  #{segment['index']:<7} {segment['score']:8.3f}  {short}")


async def watch(settings: Settings, stream: str, question: str | None, as_json: bool) -> None:
    """Set the question, then print its top-k whenever it changed."""
    stream_name(stream)
    question = question_text(question)
    async with client.connected(settings.redis) as redis:
        store = _store(settings, redis)
        await client.ensure_worker(redis)
        updates = client.updates(redis, stream)
        await anext(updates)
        if question:
            await set_question(settings, stream, question)
        await _show(store, stream, question, as_json)
        async for update in updates:
            if "error" not in update:
                await _show(store, stream, None, as_json)
            elif update["question"] == question:
                raise click.UsageError(update["error"])


async def _show(store: StreamStore, stream: str, question: str | None, as_json: bool) -> None:
    """What is known for the question or, if none is given, for the current one."""
    asked = question or current_question(await store.questions(stream))
    seen = await client.top(store, stream, asked) if asked else None
    if seen:
        show_top(seen, as_json)


def show_top(seen: dict[str, Any], as_json: bool) -> None:
    """The running top-k."""
    if as_json:
        say_json(seen)
        return
    lo, hi = seen["range"]
    what = in_line(f"{seen['stream']}: {seen['question']}")
    say(f"{what}   scored [{lo}, {hi}) of {seen['segments']}")
    for segment in seen["top"]:
        show_segment(segment)


async def set_question(settings: Settings, stream: str, question: str) -> None:
    """Make it the stream's current question, through the questions topic."""
    from stream_app.events import encode
    from stream_app.producing import producing
    from stream_app.topics import ensure_topics

    await ensure_topics(settings)
    async with producing(settings) as producer:
        value = encode({"question": question})
        await producer.send_and_wait(settings.questions_topic, value, key=stream.encode())


async def streams(settings: Settings, as_json: bool, memory: bool = False) -> None:
    """One line a stream; memory: with what its keys take in Redis."""
    async with client.connected(settings.redis) as redis:
        store = _store(settings, redis)
        for stream in await store.streams():
            known = await client.describe(store, stream)
            if memory:
                known["bytes"], _ = await weight(store, stream)
            if as_json:
                say_json(known)
                continue
            asked = "; ".join(f"{q['question']} ({q['coverage']:.0%})" for q in known["questions"])
            taken = f", {known['bytes'] / 1024:.0f} KiB" if memory else ""
            say(
                f"{in_line(stream)}   {known['segments']} segments, {known['retained']} retained, "
                f"{known['gaps']} missing{taken}   {in_line(asked)}"
            )


async def rebuild(settings: Settings, stream: str | None, yes: bool) -> None:
    """Begin the stream anew, or all streams; nothing is touched if one of them would lose what
    Kafka no longer has, unless that is said to be right."""
    from stream_app import rebuild as rebuilding
    from stream_app.topics import retained

    async with client.connected(settings.redis) as redis:
        partitions = await retained(settings, settings.tokens_topic)
        if stream is None:
            await _throw_away_older(redis)
        await check_schema(redis)
        store = _store(settings, redis)
        known = await rebuilding.places(redis, partitions)
        held = rebuilding.held(known, await retained(settings, settings.tokens_topic))
        names = await store.streams() if stream is None else [stream]
        found = [(name, await rebuilding.plan(store, name, held)) for name in names]
        # Of all there are, some may have a question only: nothing was ever read for them.
        plans = [_allowed(name, each, yes) for name, each in found if each or stream is not None]
        left = await rebuilding.found(store, stream)
        for planned in plans:
            await rebuilding.begin_anew(store, planned, held, left)
            say(str(planned))
        await _say_who_reads(redis)


async def _throw_away_older(redis: Redis) -> None:
    from stream_app.rebuild import throw_away_older

    if await noted_schema(redis) not in (None, SCHEMA) and await client.workers(redis):
        raise click.UsageError("workers of another version listen on this Redis: stop them first")
    if count := await throw_away_older(redis):
        say(f"{count} keys of an older version are gone: set the standing questions again")


def _allowed(stream: str, planned: "Rebuilding | None", yes: bool) -> "Rebuilding":
    if planned is None:
        raise click.UsageError(
            f"nothing is known of a stream {stream!r}: `xl3m streams` lists them"
        )
    if planned.missing and not yes:
        raise click.UsageError(
            f"stream {stream!r}: Kafka no longer has {planned.missing} of the offsets it was read "
            "from; what was in them would be gone. Nothing was done. --yes goes on all the same, "
            "and counts them as missing"
        )
    return planned


async def _say_who_reads(redis: Redis) -> None:
    if listening := await client.workers(redis):
        say(
            f"Of the workers that listen ({listening}), those that own these partitions end: what "
            "starts them again has them read."
        )
    else:
        say("No worker listens: the next one that starts reads.")
