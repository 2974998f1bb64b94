"""Notifications: a worker hears of changed questions, and checks Redis on each connection."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.embedded import services
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.state import QuestionRecord
from tests.support.fakes import running, until
from tests.support.pubsub import Worker


@pytest.fixture
async def own_redis(tmp_path: Any) -> Any:
    """A Redis of the test's own, whose clients may all be dropped."""
    with services.redis(tmp_path) as service:
        async with Redis.from_url(service.url) as redis:
            yield redis


def counting(calls: list[int]) -> Callable[[], Awaitable[None]]:
    """A check that counts its calls."""

    async def check() -> None:
        calls.append(1)

    return check


@pytest.mark.guarantee("Standing questions")
async def test_a_question_set_by_another_worker_is_noticed(own_redis: Redis) -> None:
    worker, checks = Worker(own_redis), list[int]()
    worker.changes.on_reset, streams = (counting(checks),), worker.scorer.streams
    streams.own(["s"])
    async with running(worker.changes):
        await until(lambda: checks)
        await streams.refresh()
        qid = worker.scorer.question_id("q?")
        await worker.store.questions.ask("s", qid, QuestionRecord("q?"))
        assert not streams.stale and not streams.tracked["s"].questions
        await own_redis.publish(keys.question_channel(), b"s")
        await until(lambda: streams.stale)
        await streams.refresh()
        assert set(streams.tracked["s"].questions) == {qid}


async def test_redis_is_checked_on_each_connection_and_after_a_rebuild(own_redis: Redis) -> None:
    """All streams are read again as well: a change announced meanwhile was not received."""
    worker, checks = Worker(own_redis), list[int]()
    worker.changes.on_reset, streams = (counting(checks),), worker.scorer.streams
    streams.own(["s"])
    async with running(worker.changes):
        await until(lambda: checks)
        await streams.refresh()
        redis: Any = own_redis
        await redis.client_kill_filter(_type="pubsub")
        await until(lambda: len(checks) == 2)
        assert streams.stale == {"s"}
        await redis.publish(keys.question_channel(), b"\xff")  # a stream like any other
        await redis.publish(keys.question_channel(), b"")
        await until(lambda: len(checks) == 3)
        assert worker.changes.health.ok


async def test_a_check_that_fails_ends_the_listener(own_redis: Redis) -> None:
    worker = Worker(own_redis)

    async def check() -> None:
        raise RuntimeError("Redis lost writes")

    worker.changes.on_reset = (check,)
    with pytest.raises(RuntimeError, match="lost writes"):
        await asyncio.wait_for(worker.changes.run(), 20)
