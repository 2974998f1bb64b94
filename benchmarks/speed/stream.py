"""How near the stream comes to scoring alone, and to transporting events alone.

`scoring`: tokens/s from Kafka to Redis with a standing question, over those of `Engine.score` on
the same segments, measured before and after. `late`: the same for a second question, set when all
was scored for the first. `two workers`: the same text read by two workers that share the cores,
over one. `carrying`: events/s of one stream that the worker decodes, segments and writes to Redis
without a standing question, over those of a bare Faust agent that only acknowledges them. The last
two need a real Kafka: the mock cluster does not support two workers, and drops what is not read in
time. Its topic is filled before the worker starts; all other text is sent once each worker has its
partitions. Each clock starts when a fifth is done.
"""

import argparse
import asyncio
import re
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any
from uuid import uuid4

import torch
from aiohttp import ClientSession
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis
from tqdm import tqdm

from benchmarks.harness.haystack import Haystack
from benchmarks.harness.live_worker import (
    READY_SECONDS,
    STREAM,
    LiveError,
    guarded,
    in_events,
    is_ready,
    process,
)
from benchmarks.harness.timing import Ratio
from stream_app.embedded import services
from stream_app.embedded.process import free_port
from stream_app.engine import create_engine
from stream_app.kafka.topics import ensure_topics
from stream_app.sample_log import service_log
from stream_app.scoring.streams import QuestionLoader
from stream_app.settings import Settings, kafka_home
from stream_app.store.state import QuestionRecord
from stream_app.store.store import StreamStore
from stream_app.testing import WORKER
from xl3m_core import Engine, Segment, Tail

TOKENS, SHORT_TOKENS = 1_000_000, 300_000
EVENTS, SHORT_EVENTS, EVENT_BYTES = 200_000, 40_000, 200
LINES = 1000
WARM_UP = 0.2  # of the text, before the clock runs
PARTITIONS = 4  # of the topic: one part of the text in each
POLL_SECONDS = 0.1  # between two polls: each costs a millisecond of the measured cores
STALL_SECONDS = 600.0
PLENTY = 1 << 40

Watched = Callable[[Coroutine[Any, Any, float]], Coroutine[Any, Any, float]]


@dataclass(frozen=True, slots=True)
class Text:
    """The streams' text, read with one standing question and then with another."""

    parts: dict[str, Haystack]
    question: str
    late_question: str

    @classmethod
    def made(cls, engine: Engine, tokens: int, seed: int) -> "Text":
        """Generate about that many tokens in all."""
        each = tokens // PARTITIONS
        parts = [
            Haystack(engine.model.count_tokens, each, seed=seed + i) for i in range(PARTITIONS)
        ]
        named = {f"part {i}": part for i, part in enumerate(parts)}
        return cls(named, *(part.needles[0].question for part in (parts[0], parts[-1])))

    def segments(self, engine: Engine) -> list[list[Segment]]:
        """The completed segments of each stream."""
        chunks = ([(chunk, None) for chunk in part] for part in self.parts.values())
        return [engine.segmenter().extend(Tail(), each)[1] for each in chunks]


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per comparison."""
    settings = Settings.from_env(model=args.model)
    engine = create_engine(settings)
    text = Text.made(engine, SHORT_TOKENS if args.short else TOKENS, args.seed)
    with (
        tempfile.TemporaryDirectory(prefix="xl3m-bench-") as folder,
        services.redis(Path(folder)) as redis,
        services.kafka(Path(folder), kafka_home=kafka_home()) as kafka,
    ):
        here = settings.replace(broker=kafka.url, redis=redis.url)
        return asyncio.run(_rows(here, engine, text, args.short, Path(folder)))


def ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """Speed over scoring alone, over one worker, and over a bare agent."""
    goals = {"scoring": "0.95", "late": "0.95", "two workers": "0.95", "carrying": "0.80"}
    return [Ratio(r["what"], r["ratio"], goals[r["what"].split(",")[0]]) for r in rows]


async def _rows(
    settings: Settings, engine: Engine, text: Text, short: bool, folder: Path
) -> list[dict[str, Any]]:
    parts = text.segments(engine)
    before = _alone(engine, text, parts)
    one, late = await _streamed(settings, engine, text, parts, 1, folder)
    alone = [*map(mean, zip(before, _alone(engine, text, parts), strict=True))]
    rows = [_row("scoring, tokens/s", one, alone[0]), _row("late, tokens/s", late, alone[1])]
    if not kafka_home():
        print("all else needs a real Kafka: set KAFKA_HOME to an unpacked distribution")
        return rows
    two, _ = await _streamed(settings, engine, text, parts, 2, folder)
    rows.append(_row("two workers, tokens/s", two, one))
    count = SHORT_EVENTS if short else EVENTS
    skipped = str(round(WARM_UP * count))
    bare = await _carried(settings, count, folder, ["bare", skipped, str(count)])
    free = await _carried(settings, count, folder, ["free"])
    return [*rows, _row("carrying, events/s", free, bare)]


def _row(what: str, speed: float, baseline: float) -> dict[str, Any]:
    return {"what": what, "speed": speed, "baseline": baseline, "ratio": speed / baseline}


def _alone(engine: Engine, text: Text, parts: Sequence[Sequence[Segment]]) -> list[float]:
    """Tokens/s of `Engine.score` with each of the text's questions; overlap counts once."""
    speeds = list[float]()
    for question in (text.question, text.late_question):
        pairs = [(segment.text, question) for part in parts for segment in part]
        engine.score(pairs[: round(WARM_UP * len(pairs))])
        started = time.perf_counter()
        engine.score(pairs)
        speeds.append(_tokens(parts) / (time.perf_counter() - started))
    return speeds


async def _streamed(
    settings: Settings,
    engine: Engine,
    text: Text,
    parts: Sequence[Sequence[Segment]],
    workers: int,
    folder: Path,
) -> tuple[float, float]:
    """Tokens per second of that many workers, which share the cores: with the question set before
    the text, and for the late question afterwards."""
    here, count = await _fresh(settings), sum(map(len, parts))
    speeds = list[float]()
    async with _reader(here) as store:
        qid = await _stand(store, engine, text, text.question)
        async with _working(here, workers, folder) as watched:
            await _send(here, text)
            speeds.append(await watched(_rate(partial(_scored, store, qid, text), count)))
            qid = await _stand(store, engine, text, text.late_question)
            speeds.append(await watched(_rate(partial(_scored, store, qid, text), count)))
    live, late = (speed * _tokens(parts) / count for speed in speeds)
    return live, late


async def _stand(store: StreamStore, engine: Engine, text: Text, question: str) -> str:
    """Add the standing question to each stream, and return its id."""
    qid = QuestionLoader(engine, store).question_id(question)
    for stream in text.parts:
        await store.questions.ask(
            stream, qid, QuestionRecord(question, set_at=time.time()), keep=True
        )
        await store.redis.publish(store.keys.question_channel(), stream.encode())
    return qid


@asynccontextmanager
async def _working(settings: Settings, workers: int, folder: Path) -> AsyncIterator[Watched]:
    """Run workers that share the threads and the partitions. Yields a wrapper for what the block
    awaits: it raises LiveError if a worker dies meanwhile."""
    threads = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // workers))}
    outputs = {free_port(): folder / f"{settings.group}-{i}.log" for i in range(workers)}
    async with AsyncExitStack() as running, ClientSession() as http:
        children = [
            await running.enter_async_context(
                process(settings.replace(http_port=port), output, WORKER, threads)
            )
            for port, output in outputs.items()
        ]

        def watched(work: Coroutine[Any, Any, float]) -> Coroutine[Any, Any, float]:
            for child, output in zip(children, outputs.values(), strict=True):
                work = guarded(child, output, work)
            return work

        await watched(_ready(http, [*outputs]))
        yield watched


async def _ready(http: ClientSession, ports: Sequence[int]) -> float:
    """Seconds until all workers have partitions at once."""
    started = time.perf_counter()
    while not all([await is_ready(http, port) for port in ports]):
        if time.perf_counter() - started > READY_SECONDS:
            raise LiveError(f"not all {len(ports)} workers have partitions")
        await asyncio.sleep(POLL_SECONDS)
    return time.perf_counter() - started


def _tokens(parts: Sequence[Sequence[Segment]]) -> int:
    """Tokens of the text that is in the segments of each part."""
    return sum(part[-1].end_token for part in parts)


async def _send(settings: Settings, text: Text) -> None:
    """Send each stream to a partition of its own."""
    async with AIOKafkaProducer(bootstrap_servers=settings.broker_address) as to:
        for partition, (stream, part) in enumerate(text.parts.items()):
            for event in in_events(part):
                value, key = event.encode(), stream.encode()
                await to.send(settings.tokens_topic, value, key=key, partition=partition)
        await to.flush()


async def _scored(store: StreamStore, qid: str, text: Text) -> int:
    """How many segments of all streams are scored."""
    ranges = [await store.scored_range(stream, qid) for stream in text.parts]
    return sum(each.hi - each.lo for each in ranges if each)


async def _fresh(settings: Settings) -> Settings:
    """The settings with a fresh tokens topic and group."""
    name = uuid4().hex[:8]
    here = settings.replace(tokens_topic=f"tokens-{name}", group=f"group-{name}")
    await ensure_topics(here)
    return here


async def _carried(settings: Settings, count: int, folder: Path, command: list[str]) -> float:
    """Events per second of a topic that is filled before the worker starts."""
    here = await _fresh(settings)
    await _fill(here, count)
    output = folder / f"{here.group}.log"
    async with (
        _reader(here) as store,
        process(here, output, ["-m", "benchmarks.harness.stub_workers", *command]) as child,
    ):
        if command[0] == "bare":
            return (count - int(command[1])) / await guarded(child, output, _told(output))
        return await guarded(child, output, _rate(partial(_read, store), count))


async def _told(output: Path) -> float:
    """Wait until a process prints the seconds it took, and return them."""
    while True:
        if said := re.search(r"took ([\d.]+)\s", output.read_text()):
            return float(said[1])
        await asyncio.sleep(0.1)


async def _fill(settings: Settings, count: int) -> None:
    """Send events of a few whole lines each, about 200 bytes."""
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
        yield StreamStore(redis)


async def _read(store: StreamStore) -> int:
    """How many events are in Redis."""
    return sum((await store.load(STREAM)).cursor.next.values())


async def _rate(done: Callable[[], Awaitable[int]], count: int) -> float:
    """The rate per second from the end of the warm-up to the end. The polling interval is longer,
    up to 0.8 s, while either end is far."""
    first, begun = 0.0, 0
    deadline = time.perf_counter() + STALL_SECONDS
    while True:
        reached, now = await done(), time.perf_counter()
        if now > deadline:
            raise LiveError(f"{reached:,} of {count:,} were done in {STALL_SECONDS:.0f} s")
        if reached >= WARM_UP * count and not begun:
            first, begun = now, reached
        if reached >= count:
            return (reached - begun) / max(now - first, 1e-9)
        await asyncio.sleep(max(POLL_SECONDS, (1 if begun else WARM_UP) - reached / count))
