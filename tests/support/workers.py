"""Real worker processes on real services, and helpers that wait for their effects.

Every `Site` has its own topics, group and streams, so that tests do not affect each other.
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
    """Workers, and all that they need."""

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
        """An engine like the workers', for offline runs."""
        model = LanguageModel.load(self.settings.model, dtype=self.settings.dtype)
        return Engine(model, self.settings.method(model.window, model.k))

    @property
    def environment(self) -> dict[str, str]:
        """The environment for commands on this site."""
        return os.environ | self.settings.to_env() | {"OMP_NUM_THREADS": "1"}

    async def start(self, *options: str, port: int | None = None) -> Process:
        """Start a worker; port: of its monitoring endpoint."""
        settings = self.settings if port is None else self.settings.replace(http_port=port)
        return await self.run(settings, *WORKER, *options)

    async def run(self, settings: Settings, *command: str) -> Process:
        """Start a Python process; command: its arguments."""
        log, env = self.folder / "workers.log", {"OMP_NUM_THREADS": "1"}
        worker = await start_worker(settings, log, command=command, env=env)
        self.workers.append(worker)
        return worker

    async def stop(self, worker: Process, how: int = signal.SIGTERM) -> int:
        """Send a signal to a worker and wait for it to end; its exit code."""
        if worker.returncode is None:
            worker.send_signal(how)
        return await asyncio.wait_for(worker.wait(), WAIT_SECONDS)

    async def send(self, topic: str, stream: str | None, value: bytes | None) -> Any:
        """Send an event with a plain producer."""
        name = getattr(self.settings, f"{topic}_topic")
        key = stream.encode() if stream else None
        return await self.producer.send_and_wait(name, value, key=key)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait until the condition holds; fails with the log if a worker died."""
        await until(lambda: self._holds(condition), seconds=WAIT_SECONDS, poll=0.1)

    async def _holds(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        """The condition; False while Redis is unreachable."""
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
    """Settings with unused topics."""
    return {f"{topic}_topic": fresh(topic) for topic in TOPICS}


@asynccontextmanager
async def site(
    broker: str, redis_url: str, folder: Path, fresh: Callable[[str], str], **changes: Any
) -> AsyncIterator[Site]:
    """A site without workers; those that are started are killed at the end."""
    model = folder / "model"
    tiny.save(tiny.make("llama"), model)
    # In bfloat16 a score depends on the rest of its batch, so equality would be a matter of luck.
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
