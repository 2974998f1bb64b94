"""A topic ten times as fast as the model: is evidence in its top-k seconds after it arrives?

The worker is a real one with the given model, and reads a made-up service log. First the model's
speed is measured with the standing questions set, then the topic is sent at TIMES that speed. Lines
that answer the questions are planted at random times; each question's top-k is polled for them.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

from aiokafka import AIOKafkaProducer

from benchmarks.harness.live_worker import STREAM, Live, live, resident_mb
from stream_app.kafka.topics import ensure_topics
from stream_app.sample_log import Fact, service_log
from stream_app.settings import Settings

TIMES = 10
QUESTIONS, PLANTED = 12, 2  # standing questions, and lines that answer each
PLANT_SECONDS = (
    5.0  # between two planted lines on average, at least: a slow model reads few segments
)
SOON_SECONDS = 10.0
POLL_SECONDS = 0.25
GRACE_SECONDS = 30.0  # the topic goes on for as long after the last planted line
LINES = 8  # of an event
CALIBRATION_SECONDS = 8.0
BLOCK_LINES = 2000
SEED = 24


@dataclass(slots=True)
class Plant:
    """A line that answers a question; arrived, found: when it was sent, and first in the top-k."""

    question: str
    line: str
    at: float
    arrived: float = 0.0
    found: float = 0.0

    @property
    def wait(self) -> float:
        """Seconds from its arrival to the top-k; infinite if it was not found."""
        return self.found - self.arrived if self.found else float("inf")


@dataclass(slots=True)
class Topic:
    """What is sent, and what was seen meanwhile. seconds: how long the topic is fast; rss: samples
    of the worker's memory in MiB."""

    live: Live
    producer: AIOKafkaProducer
    seconds: float
    plants: list[Plant]
    lines: Iterator[str]
    sent: int = 0
    rss: list[float] = field(default_factory=list)

    async def send(self, text: str) -> None:
        """One event."""
        self.sent += len(text)
        topic, key = self.live.settings.tokens_topic, STREAM.encode()
        await self.producer.send(topic, text.encode(), key=key)

    def event(self) -> str:
        """The next lines."""
        return "".join(f"{next(self.lines)}\n" for _ in range(LINES))


async def measure(settings: Settings, folder: Path, seconds: float) -> dict[str, Any]:
    """The figures of a topic that is fast for `seconds`."""
    name = uuid4().hex[:8]
    topics = {f"{t}_topic": f"{t}-{name}" for t in ("tokens", "questions", "queries")}
    here = settings.replace(group=f"triage-{name}", prefix=f"triage-{name}", **topics)
    await ensure_topics(here)
    plants = _plants(seconds - GRACE_SECONDS if seconds > 2 * GRACE_SECONDS else seconds / 2)
    async with (
        live(here, folder) as worker,
        AIOKafkaProducer(bootstrap_servers=here.broker_address, linger_ms=5) as producer,
    ):
        topic = Topic(worker, producer, seconds, plants, _noise(plants))
        return await worker.guarded(_run(topic))


async def _run(topic: Topic) -> dict[str, Any]:
    await topic.send(topic.event())
    await topic.live.stand(list(dict.fromkeys(plant.question for plant in topic.plants)))
    speed = await _speed(topic)
    sending = asyncio.create_task(_flood(topic, TIMES * speed))
    while not sending.done():
        await asyncio.sleep(POLL_SECONDS)
        await _look(topic)
    await sending
    return await _figures(topic, speed)


def _plants(seconds: float) -> list[Plant]:
    """Lines and their questions at random times within the seconds, the first to come first."""
    rng, facts = Random(SEED), list[tuple[Fact, str]]()
    log, known = service_log(40 * QUESTIONS, SEED)
    for fact in known:
        if fact.question.split()[-2] == "host" and len(facts) < QUESTIONS:
            facts.append((fact, log[fact.line]))
    planted = min(QUESTIONS * PLANTED, max(1, int(seconds / PLANT_SECONDS)))
    at = sorted(rng.uniform(0, seconds) for _ in range(planted))
    lines = [(fact, f"{line} seq={turn}") for turn in range(PLANTED) for fact, line in facts]
    rng.shuffle(lines)
    return [Plant(fact.question, line, t) for (fact, line), t in zip(lines, at, strict=False)]


def _noise(plants: list[Plant]) -> Iterator[str]:
    """Lines without end that answer none of the questions."""
    keys = [(words := plant.line.split())[3] + " " + words[4].split("=")[0] for plant in plants]
    for seed in count(SEED + 1):
        for line in service_log(BLOCK_LINES, seed)[0]:
            if not any(key in line for key in keys):
                yield line


async def _speed(topic: Topic) -> float:
    """How many characters a second the model reads with all questions: of ever larger amounts, each
    read as a whole, the first that takes CALIBRATION_SECONDS."""
    await _until_read(topic)
    size = 4096
    while True:
        started, end = time.perf_counter(), topic.sent + size
        while topic.sent < end:
            await topic.send(topic.event())
        await _until_read(topic)
        if (seconds := time.perf_counter() - started) >= CALIBRATION_SECONDS:
            return size / seconds
        size *= 2


async def _until_read(topic: Topic) -> None:
    """Wait until all that was sent is in the log or the tail, and all segments are scored."""
    store = topic.live.store
    while True:
        state = await store.load(STREAM)
        qids = await store.questions.load(STREAM)
        ranges = await store.scored_ranges(STREAM, qids)
        ends = [scored and scored.hi for scored in ranges]
        if state.tail.end >= topic.sent and all(end == state.cursor.head for end in ends):
            return
        await asyncio.sleep(POLL_SECONDS / 5)


async def _flood(topic: Topic, speed: float) -> None:
    """Send `speed` characters a second, and the planted lines when their time comes."""
    began, before, waiting = time.perf_counter(), topic.sent, iter(topic.plants)
    plant = next(waiting, None)
    while (now := time.perf_counter() - began) < topic.seconds:
        await asyncio.sleep(max(0.0, (topic.sent - before) / speed - now))
        await topic.send(topic.event())
        while plant and plant.at <= time.perf_counter() - began:
            await topic.send(f"{plant.line}\n")
            plant.arrived = time.perf_counter()
            plant = next(waiting, None)
    await topic.producer.flush()


async def _look(topic: Topic) -> None:
    """Sample the worker's memory, and note which planted lines are in their top-k now."""
    topic.rss.append(resident_mb(topic.live.worker.pid))
    missing = [plant for plant in topic.plants if plant.arrived and not plant.found]
    wanted = {plant.question for plant in missing}
    records = await topic.live.store.questions.load(STREAM)
    for qid, record in records.items():
        if record.question in wanted:
            view = await topic.live.store.snapshot(STREAM, qid)
            texts = [segment.text for segment, _ in view.top] if view else []
            for plant in missing:
                if plant.question == record.question and any(plant.line in t for t in texts):
                    plant.found = time.perf_counter()


async def _figures(topic: Topic, speed: float) -> dict[str, Any]:
    store = topic.live.store
    state = await store.load(STREAM)
    (last,) = await store.segments(STREAM, state.cursor.head - 1, state.cursor.head)
    ranges = await store.scored_ranges(STREAM, await store.questions.load(STREAM))
    waits = sorted(plant.wait for plant in topic.plants)
    settled = topic.rss[len(topic.rss) // 4]
    return {
        "tokens/s of the model": speed * last.end_token / max(1, last.end),
        "topic over model": TIMES,
        "planted": len(waits),
        "found within 10 s": sum(wait <= SOON_SECONDS for wait in waits) / len(waits),
        "found": sum(wait < float("inf") for wait in waits) / len(waits),
        "median s": waits[len(waits) // 2],
        "coverage at the end": min(r.coverage(state.cursor.head) for r in ranges if r),
        "rss MB after a quarter": settled,
        "most rss MB later": max(topic.rss[len(topic.rss) // 4 :]),
    }
