"""`xl3m demo`: a broker, a Redis, a worker and a live stream on this machine, and three questions.

The stream is the machine's own log, if there is one, interleaved with a made-up service log whose
answers are known. Uses the public client only; checks the answers and cleans up.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from stream_app.cli.display import show_answer, show_top
from stream_app.cli.output import echo
from stream_app.client import client
from stream_app.embedded import services
from stream_app.errors import UnreachableError
from stream_app.feeding.feeder import open_feeder
from stream_app.runtime.cleanup import temporary_directory, unwinding_on_signals
from stream_app.sample_log import Fact, service_log
from stream_app.settings import Settings, kafka_home
from stream_app.store.connection import open_redis
from stream_app.store.store import StreamStore
from stream_app.testing import Process, worker

STREAM = "this-machine"
OWN_LOGS = ("/var/log/syslog", "/var/log/dpkg.log", "/var/log/install.log", "/var/log/system.log")
LINES_PER_EVENT = 20
LOG = "worker.log"
SHOWN_EVERY = 2.0
READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo's settings, store, lines to stream and known facts."""

    settings: Settings
    store: StreamStore
    lines: list[str]
    facts: list[Fact]


def run_demo(settings: Settings, lines: int) -> None:
    """Run the demo; everything it created is deleted at the end."""
    with (
        unwinding_on_signals(),
        temporary_directory("xl3m-demo-") as folder,
        services.redis(folder) as redis,
        services.kafka(folder, kafka_home=kafka_home()) as kafka,
    ):
        echo(f"broker  {kafka.kind} at {kafka.url}\nredis   {redis.kind} at {redis.url}")
        asyncio.run(_run(settings.embedded(kafka.url, redis.url), lines, folder))


async def _run(settings: Settings, lines: int, folder: Path) -> None:
    async with open_redis(settings.redis) as redis:
        store = StreamStore.from_settings(settings, redis)
        await _demonstrate(Demo(settings, store, *_sample_stream(lines)), folder)


async def _demonstrate(demo: Demo, folder: Path) -> None:
    async with _worker(demo, folder) as process:
        demo_task = asyncio.create_task(_show(demo))
        exited = asyncio.create_task(process.wait())
        await asyncio.wait({demo_task, exited}, return_when=asyncio.FIRST_COMPLETED)
        if not demo_task.done():
            demo_task.cancel()
            raise UnreachableError(f"the worker ended: {_log_tail(folder)}")
        demo_task.result()
        exited.cancel()


async def _show(demo: Demo) -> None:
    """Stream under a standing question, then ask three ad hoc questions."""
    facts = demo.facts
    await _stream(demo, facts[len(facts) // 3].question)
    is_right = [await _ask(demo, facts[len(facts) * part // 4]) for part in (1, 2, 3)]
    echo(f"\n{sum(is_right)} of {len(is_right)} answers are right.")


def _sample_stream(lines: int) -> tuple[list[str], list[Fact]]:
    """The machine's log and the service log, interleaved; and the service log's facts."""
    service, facts = service_log(lines // 2, seed=random.randrange(1 << 30))
    own_log = next((path for path in map(Path, OWN_LOGS) if _is_readable(path)), None)
    real = (
        own_log.read_text(errors="replace").splitlines()[-(lines - len(service)) :]
        if own_log
        else []
    )
    echo(
        f"stream  {len(service)} made-up lines"
        + (f" among {len(real)} of {own_log}" if own_log else "")
    )
    mixed = [line for pair in zip_longest(service, real) for line in pair if line is not None]
    return mixed, facts


def _is_readable(path: Path) -> bool:
    return os.access(path, os.R_OK) and path.stat().st_size > 0


@asynccontextmanager
async def _worker(demo: Demo, folder: Path) -> AsyncIterator[Process]:
    """A worker process that listens when the block begins."""
    settings = demo.settings.replace(group="xl3m-demo")
    async with worker(settings, folder / LOG) as process:
        await _until_listening(process, demo.store, folder)
        yield process


async def _until_listening(process: Process, store: StreamStore, folder: Path) -> None:
    echo("worker  loading the model …")
    try:
        async with asyncio.timeout(READY_SECONDS):
            while process.returncode is None:
                if await client.workers(store):
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        pass
    raise UnreachableError(f"the worker did not start: {_log_tail(folder)}")


def _log_tail(folder: Path) -> str:
    return " | ".join((folder / LOG).read_text(errors="replace").splitlines()[-3:])


async def _stream(demo: Demo, question: str) -> None:
    """Feed the lines under a standing question, and show its top-k meanwhile."""
    echo(f"\nstanding question: {question}")
    await client.set_question(demo.settings, STREAM, question)
    watching = asyncio.create_task(_show_top(demo, question))
    async with open_feeder(demo.settings, demo.store) as feeder:
        await feeder.feed(STREAM, _events(demo.lines), lambda _: None)
    while not await _covered(demo, question):
        await asyncio.sleep(0.1)
    watching.cancel()
    await _show_once(demo, question)


async def _events(lines: list[str]) -> AsyncIterator[str]:
    for start in range(0, len(lines), LINES_PER_EVENT):
        yield "\n".join(lines[start : start + LINES_PER_EVENT]) + "\n"


async def _covered(demo: Demo, question: str) -> bool:
    """Whether everything fed is in Redis and scored."""
    state = await demo.store.load(STREAM)
    if state.tail.end < sum(len(line) + 1 for line in demo.lines):
        return False
    seen = await client.top(demo.store, STREAM, question)
    return seen is not None and seen["range"] == [0, seen["segments"]]


async def _show_top(demo: Demo, question: str) -> None:
    """Show the top-k at its changes, at most every SHOWN_EVERY seconds."""
    async for _ in client.updates(demo.store, STREAM):
        await _show_once(demo, question)
        await asyncio.sleep(SHOWN_EVERY)


async def _show_once(demo: Demo, question: str) -> None:
    seen = await client.top(demo.store, STREAM, question)
    if seen and seen["top"]:
        show_top(seen)


async def _ask(demo: Demo, fact: Fact) -> bool:
    """Ask about the fact; return whether the answer is right."""
    echo(f"\n? {fact.question}\n! ", nl=False)
    answer: dict[str, Any] = {}
    async for message in client.ask(demo.store, STREAM, fact.question, deadline=60):
        if message["type"] == "text":
            echo(message["text"], nl=False)
        else:
            answer = message
    is_right = answer.get("answer") == fact.answer
    echo(f"   ({'right' if is_right else f'wrong: it is {fact.answer}'})", nl=False)
    show_answer(answer)
    return is_right
