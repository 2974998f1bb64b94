"""The system under test: services, supervised workers, and streams that are fed.

The expected text is read back from the topics at the end, since a producer cannot know which of its
retried records arrived.
"""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from benchmarks.harness.live_worker import is_ready
from stream_app.embedded.process import free_port
from stream_app.testing import until
from tests.support.workers import Site, site
from tests.system.chaos import services
from tests.system.chaos.proxy import Proxy, proxied

STREAMS = 6
END_SECONDS = 240.0
BAD = b"caf\xe9"
WORDS = ("pump", "valve", "pressure", "low", "ok", "Übertrag", "気圧", "x" * 60, "", "42")


@dataclass
class World:
    """One run. wanted: the number of workers; ports: of their monitoring endpoints; ended: exit
    codes; done: the number of faults, by name."""

    site: Site
    redis: services.Restartable
    kafka: services.Restartable
    proxy: Proxy
    rng: random.Random
    streams: list[str]
    wanted: int = 2
    fed: bool = False
    query_ids: list[str] = field(default_factory=list)
    ports: dict[asyncio.subprocess.Process, int] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    questions: dict[str, str] = field(default_factory=dict)

    def alive(self) -> list[asyncio.subprocess.Process]:
        """The running workers."""
        return [worker for worker in self.site.workers if worker.returncode is None]

    async def victim(self) -> asyncio.subprocess.Process:
        """A worker that has partitions; waits until there is one."""
        found = list[asyncio.subprocess.Process]()

        async def any_ready() -> bool:
            async with ClientSession() as http:
                alive = self.alive()
                ready = [await is_ready(http, self.ports[worker]) for worker in alive]
            found[:] = [worker for worker, is_so in zip(alive, ready, strict=True) if is_so]
            return bool(found)

        await self.until(any_ready, "a worker with partitions")
        return self.rng.choice(found)

    async def keep(self) -> None:
        """Restart workers that ended and stop surplus ones, as a supervisor does."""
        while True:
            for worker in set(self.site.workers) - set(self.alive()):
                self.ended.append(worker.returncode or 0)
                self.site.workers.remove(worker)
            alive = self.alive()
            for _ in range(self.wanted - len(alive)):
                port = free_port()
                self.ports[await self.site.start(port=port)] = port
            for worker in alive[self.wanted :]:
                worker.terminate()
            await asyncio.sleep(0.2)

    async def feed(self, pace: float) -> None:
        """Send records of all streams, some of them bad, until `fed` is set."""
        while not self.fed:
            stream = self.rng.choice(self.streams)
            bad = self.rng.random() < 0.02
            lines = [" ".join(self.rng.choices(WORDS, k=self.rng.randrange(12))) for _ in range(4)]
            await self.send("tokens", stream, BAD if bad else "\n".join(lines).encode())
            await asyncio.sleep(pace * self.rng.random())

    async def ask(self, stream: str, question: str) -> None:
        """Set the stream's only question."""
        self.questions[stream] = question
        await self.send("questions", stream, question.encode())

    async def query(self) -> None:
        """Send a query."""
        self.query_ids.append(f"query-{len(self.query_ids)}")
        value = {"id": self.query_ids[-1], "question": "is the valve ok?", "deadline": 5}
        await self.send("queries", self.rng.choice(self.streams), json.dumps(value).encode())

    async def send(self, topic: str, stream: str, value: bytes) -> None:
        """Send until the broker confirms; duplicates do no harm, since `texts` reads the topic."""
        while True:
            try:
                await self.site.send(topic, stream, value)
                return
            except KafkaError:
                await asyncio.sleep(0.2)

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait until the condition holds; fails with the workers' log on a timeout."""
        try:
            await until(lambda: _holds(condition), seconds=END_SECONDS, poll=0.2)
        except TimeoutError:
            log = (self.site.folder / "workers.log").read_text(errors="replace")[-6000:]
            raise AssertionError(
                f"timed out waiting for: {what}; the workers' log:\n{log}"
            ) from None

    async def topic(self, name: str) -> list[Any]:
        """All records of a topic, by partition in the order of their offsets."""
        settings = self.site.settings
        topic = getattr(settings, f"{name}_topic")
        numbers = await self.site.producer.partitions_for(topic)
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        async with AIOKafkaConsumer(bootstrap_servers=settings.broker_address) as consumer:
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            ends = await consumer.end_offsets(partitions)
            records = list[Any]()
            for partition, end in ends.items():
                while await consumer.position(partition) < end:
                    for some in (await consumer.getmany(partition, timeout_ms=500)).values():
                        records += some
        return records

    async def texts(self) -> dict[str, str]:
        """The text of each stream, from the topic."""
        texts = defaultdict[str, str](str)
        for record in await self.topic("tokens"):
            if record.value != BAD:
                text = record.value.decode()
                texts[record.key.decode()] += text if text.endswith("\n") else text + "\n"
        return texts


async def _holds(condition: Callable[[], Awaitable[bool]]) -> bool:
    with suppress(RedisError, KafkaError, OSError):
        return await condition()
    return False


@asynccontextmanager
async def world(
    folder: Path, home: Path, seed: int, fresh: Callable[[str], str]
) -> AsyncIterator[World]:
    """A world with its own services; its workers reach Redis through the proxy."""
    redis, kafka = services.redis(folder / "redis"), services.kafka(folder / "kafka", home)
    try:
        at, broker = redis.start(), kafka.start()
        port = int(at.url.rsplit(":", 1)[1].split("/")[0])
        async with (
            proxied(port) as proxy,
            site(
                broker.url,
                at.url,
                folder,
                fresh,
                session_timeout_seconds=6.0,
                query_deadline_seconds=5.0,
            ) as here,
        ):
            url = f"redis://127.0.0.1:{proxy.port}/0"
            here.settings = here.settings.replace(redis=url)
            streams = [fresh(f"stream {i}/ü") for i in range(STREAMS)]
            made = World(here, redis, kafka, proxy, random.Random(seed), streams)
            keeper = asyncio.create_task(made.keep())
            try:
                yield made
            finally:
                keeper.cancel()
                with suppress(asyncio.CancelledError):
                    await keeper
    finally:
        redis.life.close()
        kafka.life.close()
