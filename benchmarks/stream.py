"""How near the stream comes to scoring alone, and to carrying events alone.

`scoring`: tokens/s from Kafka to Redis with one standing question, over those of `Engine.score`
on the same segments back to back. `carrying`: events/s of the worker with a model that costs
nothing, over those of a bare Faust agent that only acknowledges. All in one run, one after another.
"""

import argparse
import asyncio
import re
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis
from tqdm import tqdm

from benchmarks.haystack import Haystack
from benchmarks.live import STREAM, Live, guarded, live, process
from benchmarks.twenty_million import speed
from stream_app import embedded
from stream_app.engine import create_engine
from stream_app.sample import service_log
from stream_app.settings import Settings, kafka_home
from stream_app.store import StreamStore
from stream_app.topics import ensure_topics
from xl3m_core import Engine

TOKENS, SHORT_TOKENS = 1_000_000, 150_000
EVENTS, SHORT_EVENTS, EVENT_BYTES = 200_000, 40_000, 200
LINES = 1000
WARM_UP = 0.2  # of the text, before the clock runs


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row each."""
    settings = Settings.from_env(model=args.model)
    engine = create_engine(settings)
    tokens = SHORT_TOKENS if args.short else TOKENS
    haystack = Haystack(engine.model.count, tokens, seed=args.seed)
    with (
        tempfile.TemporaryDirectory(prefix="xl3m-bench-") as folder,
        embedded.redis(Path(folder)) as redis,
        embedded.kafka(Path(folder), kafka_home=kafka_home()) as kafka,
    ):
        here = replace(settings, broker=kafka.url, redis=redis.url)
        streamed = asyncio.run(_streamed(here, haystack, Path(folder)))
        count = SHORT_EVENTS if args.short else EVENTS
        bare = asyncio.run(_carried(here, count, Path(folder), ["bare", str(count)]))
        free = asyncio.run(_carried(here, count, Path(folder), ["free"]))
    alone = _scored(engine, haystack)
    return [
        {
            "what": "scoring, tokens/s",
            "stream": streamed,
            "alone": alone,
            "ratio": streamed / alone,
        },
        {"what": "carrying, events/s", "stream": free, "alone": bare, "ratio": free / bare},
    ]


async def _streamed(settings: Settings, haystack: Haystack, folder: Path) -> float:
    async with live(settings, folder) as here:
        return await here.guarded(_read(here, haystack))


async def _read(here: Live, haystack: Haystack) -> float:
    await here.stand([haystack.needles[0].question])
    samples = await here.read(haystack, every=0.1, on_sample=lambda _: None)
    end = samples[-1].tokens
    return speed(samples, WARM_UP * end, end)


def _scored(engine: Engine, haystack: Haystack) -> float:
    """Tokens of the text a second, each counted once however often segments overlap."""
    question = haystack.needles[0].question
    segments = list(chain.from_iterable(engine.segmenter().batches(haystack, 1)))
    start = round(WARM_UP * len(segments))
    engine.score([(segment.text, question) for segment in segments[:start]])
    started = time.perf_counter()
    engine.score([(segment.text, question) for segment in segments[start:]])
    tokens = segments[-1].end_token - segments[start].start_token
    return tokens / (time.perf_counter() - started)


async def _carried(settings: Settings, count: int, folder: Path, command: list[str]) -> float:
    """Events a second of a topic that is full before the worker starts."""
    name = uuid4().hex[:8]
    here = replace(settings, tokens_topic=f"tokens-{name}", group=f"group-{name}")
    await ensure_topics(here)
    await _fill(here, count)
    output = folder / f"{name}.log"
    async with (
        _reader(here) as store,
        process(here, output, ["-m", "benchmarks.carriers", *command]) as child,
    ):
        if command[0] == "bare":
            return (count - 1) / await guarded(child, output, _told(output))
        return await guarded(child, output, _rate(store, count))


async def _told(output: Path) -> float:
    """The seconds a process says it took, once it does."""
    while True:
        if said := re.search(r"took ([\d.]+)\s", output.read_text()):
            return float(said[1])
        await asyncio.sleep(0.1)


async def _fill(settings: Settings, count: int) -> None:
    """Events of a few whole lines each, about 200 bytes."""
    lines = service_log(LINES, seed=1)[0]
    each = round(EVENT_BYTES * len(lines) / len("\n".join(lines)))
    starts = range(0, len(lines) - each, each)
    events = ["".join(f"{line}\n" for line in lines[at : at + each]).encode() for at in starts]
    async with AIOKafkaProducer(bootstrap_servers=settings.broker_address, linger_ms=20) as to:
        for i in tqdm(range(count), desc="events", disable=None):
            await to.send(settings.tokens_topic, events[i % len(events)], key=STREAM.encode())
        await to.flush()


@asynccontextmanager
async def _reader(settings: Settings) -> AsyncIterator[StreamStore]:
    async with Redis.from_url(settings.redis) as redis:
        await redis.flushdb()
        yield StreamStore(redis, 1, 1)


async def _rate(store: StreamStore, count: int) -> float:
    """From the first look at which anything was read to the one at which all was."""
    first, begun = 0.0, 0
    while True:
        read = sum((await store.load(STREAM)).cursor.next.values())
        now = time.perf_counter()
        if read and not begun:
            first, begun = now, read
        if read >= count:
            return (read - begun) / max(now - first, 1e-9)
        await asyncio.sleep(0.01)
