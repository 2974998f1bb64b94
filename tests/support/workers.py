"""Real worker processes on real services, and a way to wait for what they do.

Every `Site` has its own topics, group and streams, so that tests do not see each other.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from stream_app.kafka import auth
from stream_app.kafka.topics import TOPICS, ensure_topics
from stream_app.settings import Settings
from stream_app.store.store import StreamStore
from stream_app.testing import (
    WORKER,
    Process,
    offline_scores,
    offline_segments,
    start_worker,
    until,
)
from tests.support import tiny
from xl3m_core import Engine, LanguageModel, Segment

WAIT_SECONDS = 60.0


@dataclass
class Site:
    """Workers and everything they need."""

    settings: Settings
    folder: Path
    redis: Redis
    producer: AIOKafkaProducer
    workers: list[Process] = field(default_factory=list)

    @property
    def store(self) -> StreamStore:
        """The streams' state."""
        return StreamStore.from_settings(self.settings, self.redis)

    @property
    def engine(self) -> Engine:
        """The engine the workers have, for runs without them."""
        model = LanguageModel.load(self.settings.model, dtype=self.settings.dtype)
        return Engine(model, self.settings.method(model.window, model.k))

    @property
    def environment(self) -> dict[str, str]:
        """What a command of this site is started with."""
        return os.environ | self.settings.to_env() | {"OMP_NUM_THREADS": "1"}

    async def start(self, *options: str, port: int | None = None) -> Process:
        """One more worker, with a port of its own if one is given."""
        settings = self.settings if port is None else self.settings.replace(http_port=port)
        return await self.run(settings, *WORKER, *options)

    async def run(self, settings: Settings, *command: str) -> Process:
        """One more process of Python; command: its arguments."""
        log, env = self.folder / "workers.log", {"OMP_NUM_THREADS": "1"}
        worker = await start_worker(settings, log, command=command, env=env)
        self.workers.append(worker)
        return worker

    async def stop(self, worker: Process, how: int = signal.SIGTERM) -> int:
        """Ask a worker to end, and see that it does."""
        if worker.returncode is None:
            worker.send_signal(how)
        return await asyncio.wait_for(worker.wait(), WAIT_SECONDS)

    async def send(self, topic: str, stream: str | None, value: bytes | None) -> Any:
        """An event, by any producer."""
        name = getattr(self.settings, f"{topic}_topic")
        key = stream.encode() if stream else None
        return await self.producer.send_and_wait(name, value, key=key)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for it to become true; a worker that died meanwhile is shown instead."""
        await until(lambda: self._holds(condition), seconds=WAIT_SECONDS, poll=0.1)

    async def _holds(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        """False also while Redis is away."""
        died = [w for w in self.workers if w.returncode not in (None, 0, -signal.SIGKILL)]
        assert not died, (self.folder / "workers.log").read_text()[-4000:]
        try:
            return await condition()
        except RedisConnectionError:
            return False

    async def received(self, topic: str, count: int) -> list[tuple[bytes | None, bytes]]:
        """The first `count` events of a topic."""
        name = getattr(self.settings, f"{topic}_topic")
        options = auth.kafka(self.settings)
        consumer = AIOKafkaConsumer(name, **options, auto_offset_reset="earliest")
        async with consumer, asyncio.timeout(WAIT_SECONDS):
            events = [await consumer.getone() for _ in range(count)]
        return [(event.key, event.value) for event in events]


def fresh_topics(fresh: Callable[[str], str]) -> dict[str, Any]:
    """Settings of topics that nobody has used."""
    return {f"{topic}_topic": fresh(topic) for topic in TOPICS}


@asynccontextmanager
async def site(
    broker: str, redis_url: str, folder: Path, fresh: Callable[[str], str], **changes: Any
) -> AsyncIterator[Site]:
    """A site without workers yet; those started are stopped at the end."""
    model = folder / "model"
    tiny.save(tiny.make("llama"), model)
    # In bfloat16 a score depends on what is scored beside it: equality would be a matter of luck.
    settings = Settings(
        broker=broker, redis=redis_url, model=str(model), dtype="float32", group=fresh("group"),
        **fresh_topics(fresh), **changes,
    )  # fmt: skip
    await ensure_topics(settings)
    async with (
        Redis.from_url(redis_url) as redis,
        AIOKafkaProducer(**auth.kafka(settings)) as producer,
    ):
        here = Site(settings, folder, redis, producer)
        try:
            yield here
        finally:
            for worker in here.workers:
                await here.stop(worker, signal.SIGKILL)


def offline(engine: Engine, text: str, question: str) -> tuple[list[Segment], list[float]]:
    """The completed segments of a stream with this text, and their scores."""
    _, segments = offline_segments(engine, text)
    return segments, offline_scores(engine, segments, question)
