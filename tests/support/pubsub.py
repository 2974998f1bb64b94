"""Workers behind the pub/sub endpoint, without Kafka, and a client that sees all their replies."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from stream_app.events import decode
from stream_app.queries.answering import Answering
from stream_app.queries.prefetch import PromptPrefetcher
from stream_app.queries.pubsub import PubSubServer
from stream_app.queries.replies import MAX_CONCURRENT_QUERIES
from stream_app.runtime.retry import Health
from stream_app.runtime.shutdown import Shutdown
from stream_app.scoring.changes import ChangeListener
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.keys import Keys
from stream_app.store.store import StreamStore
from tests.support.fakes import PLENTY, HashEngine, running, until
from xl3m_core import Engine


class Worker:
    """The pub/sub server, the answering and the change listener of a worker, on one Redis client.
    answered: ids of the queries that this worker answered; gate: no query is answered while it is
    closed. engine: by default a HashEngine; values: of settings."""

    def __init__(
        self, redis: Redis, prefix: str = "xl3m", engine: Engine | None = None, **values: Any
    ) -> None:
        settings = Settings(max_event_bytes=4096, prefix=prefix, **values)
        engine, health = engine or HashEngine(), Health()
        self.store = StreamStore(redis, keys=Keys(prefix), health=health)
        self.scorer = Scorer(
            engine,
            self.store,
            PLENTY,
            on_change=lambda stream, qid: prefetcher.mark_stale(stream, qid),
        )
        prefetcher = PromptPrefetcher(engine, self.store, self.scorer)
        answering = Answering(settings, engine, self.store, self.scorer, prefetcher)
        self.server = PubSubServer(settings, self.store, answering, health, Shutdown(20))
        self.changes = ChangeListener(self.store, self.scorer.streams, health)
        self.answered: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._answer = answering.answer
        answering.answer = self.answer  # type: ignore[assignment, method-assign]

    @property
    def services(self) -> list[Any]:
        """The services to run."""
        return [self.server, self.changes, self.scorer]

    async def answer(self, query: Any, *more: Any) -> Any:
        """The answer, once the gate is open."""
        await self.gate.wait()
        self.answered.append(query.id)
        return await self._answer(query, *more)


class PubSubClient:
    """Sends queries, and receives the replies to every client."""

    def __init__(self, redis: Redis, workers: list[Worker], pubsub: Any) -> None:
        self.redis, self.workers, self.pubsub = redis, workers, pubsub
        self.store = StreamStore(redis)

    async def ask(self, message: bytes | dict[str, Any]) -> None:
        """Publish a query; every worker receives it."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        assert await self.redis.publish(keys.query_channel(), data) == len(self.workers)

    async def receive(self) -> tuple[str, bytes]:
        """The next reply: the query's id and the message."""
        async with asyncio.timeout(20):
            message = await anext(self.pubsub.listen())
        return message["channel"].decode().removeprefix("xl3m:answer:"), message["data"]

    async def next_answer(self) -> tuple[str, bytes]:
        """The next answer; pieces of text are skipped."""
        while True:
            query_id, data = await self.receive()
            if decode(data)["type"] == "answer":
                return query_id, data


@asynccontextmanager
async def workers_on(redis_url: str, count: int, **options: Any) -> AsyncIterator[PubSubClient]:
    """A client, and `count` running workers with these options."""
    workers = [Worker(Redis.from_url(redis_url), **options) for _ in range(count)]
    async with Redis.from_url(redis_url) as redis, redis.pubsub() as pubsub:
        pubsub.ignore_subscribe_messages = True
        await pubsub.psubscribe(keys.answer_channel("*"))
        async with running(*(service for worker in workers for service in worker.services)):
            await until(lambda: listening(redis, count))
            yield PubSubClient(redis, workers, pubsub)
    for worker in workers:
        await worker.store.redis.aclose()


async def listening(redis: Any, count: int) -> bool:
    """Whether `count` workers listen for queries and for changes of questions."""
    channels = keys.query_channel(), keys.question_channel()
    subscribers = await redis.pubsub_numsub(*channels)
    return all(number == count for _, number in subscribers)


async def is_idle(worker: Worker) -> bool:
    """Whether the worker is answering no query."""
    return worker.server.turns._value == MAX_CONCURRENT_QUERIES


async def exist(redis: Any, names: list[str]) -> bool:
    """Whether Redis has all keys."""
    return bool(await redis.exists(*names) == len(names))


async def is_missing(redis: Any, name: str) -> bool:
    """Whether Redis does not have the key."""
    return not await redis.exists(name)
