"""Clients of workers behind the pub/sub endpoint, and a stream to ask about."""

from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from stream_app.store.state import Commit
from stream_app.store.store import StreamStore
from tests.support.fakes import HashEngine
from tests.support.pubsub import PubSubClient, workers_on


@pytest.fixture
async def three(redis_url: str) -> AsyncIterator[PubSubClient]:
    """A client of three workers."""
    async with workers_on(redis_url, 3) as pubsub_client:
        yield pubsub_client


@pytest.fixture
async def one(redis_url: str) -> AsyncIterator[PubSubClient]:
    """A client of one worker."""
    async with workers_on(redis_url, 1) as pubsub_client:
        yield pubsub_client


@pytest.fixture
async def stream(redis_client: Redis, fresh: Callable[[str], str]) -> str:
    """A stream of twenty lines."""
    name, segmenter = fresh("stream"), HashEngine().segmenter()
    store = StreamStore(redis_client)
    base = await store.load(name)
    tail, segments = segmenter.push(base.tail, "".join(f"line {i}\n" for i in range(20)))
    await store.commit([Commit(name, base, segments, tail, "t/0", 1, 1)])
    return name
