"""A worker asked to stop ends within its time limit and commits nothing that is not written."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_app.client import client
from stream_app.embedded import services as embedded
from stream_app.embedded.process import free_port
from stream_app.embedded.services import Service
from stream_app.runtime.shutdown import Shutdown
from stream_app.settings import kafka_home
from tests.support.workers import Site, offline, site
from tests.system.chaos import services
from tests.system.test_system import chunks, finished, has_begun, log_text, says

# Workers and Kafka are started and stopped: slow on a busy machine.
pytestmark = pytest.mark.timeout(300)

Fresh = Callable[[str], str]

BOUND = 12.0
QUESTION = "which pump?"


async def ended(here: Site, worker: Any, since: float) -> int:
    """The worker's exit code; asserts that it ended within the limit and some time to exit."""
    code: int = await here.stop(worker)
    assert time.monotonic() - since < BOUND + 3
    return code


async def assert_acknowledged_is_written(here: Site) -> None:
    """No partition's committed offset is beyond its position in Redis."""
    settings = here.settings
    numbers = await here.producer.partitions_for(settings.tokens_topic)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.broker_address, group_id=settings.group, enable_auto_commit=False
    )
    async with consumer:
        for number in numbers:
            committed = await consumer.committed(TopicPartition(settings.tokens_topic, number))
            position, _ = await here.store.partitions.position(f"{settings.tokens_topic}/{number}")
            assert (committed or 0) <= (position or 0)


@asynccontextmanager
async def busy(
    broker: str, redis: str, folder: Path, fresh: Fresh
) -> AsyncIterator[tuple[Site, Any, str, str]]:
    """A site whose worker has started to read more than it can score before it has to stop."""
    changes = {
        "shutdown_timeout_seconds": BOUND,
        "max_lag_tokens": 256,
        "on_lag": "wait",
        "session_timeout_seconds": 6.0,
    }
    async with site(broker, redis, folder, fresh, **changes) as here:
        stream, text = fresh("stream"), log_text(1, 2500)
        await here.send("questions", stream, QUESTION.encode())
        for piece in chunks(text, 1):
            await here.producer.send(
                here.settings.tokens_topic, piece.encode(), key=stream.encode()
            )
        await here.producer.flush()
        worker = await here.start()
        await here.until(lambda: has_begun(here, stream))
        yield here, worker, stream, text


@pytest.mark.guarantee("Shutdown")
async def test_with_a_large_lag_it_ends_in_order_and_loses_nothing(
    durable_broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    async with busy(durable_broker.url, redis_url, tmp_path, fresh) as (here, worker, stream, text):
        assert await ended(here, worker, time.monotonic()) == 0
        read = (await here.store.load(stream)).tail.end
        assert read < len(text), "all was read before it had to stop"
        await assert_acknowledged_is_written(here)
        await here.start()
        segments, _ = offline(here.engine, text, QUESTION)
        await here.until(lambda: finished(here, stream, QUESTION, len(segments)))
        found = await here.store.segments(stream, 0, len(segments))
        assert [segment.text for segment in found] == [segment.text for segment in segments]


@pytest.mark.guarantee("Shutdown")
async def test_queries_that_were_started_are_answered(
    durable_broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    changes = {"shutdown_timeout_seconds": 40.0, "step_target_ms": 1, "batch_tokens": 64}
    async with site(durable_broker.url, redis_url, tmp_path, fresh, **changes) as here:
        stream, log = fresh("stream"), tmp_path / "workers.log"
        await here.send("tokens", stream, log_text(2, 400).encode())
        worker = await here.start()
        await here.until(lambda: has_begun(here, stream))
        query = {"id": "q1", "question": "which valve?", "deadline": 3}
        await here.send("queries", stream, json.dumps(query).encode())
        await here.until(lambda: is_registered(here, stream))
        assert await here.stop(worker) == 0
        ((_, value),) = await here.received("answers", 1)
        assert json.loads(value)["id"] == "q1" and "error" not in json.loads(value)
        assert not await says(log, "Traceback")


async def is_registered(here: Site, stream: str) -> bool:
    """Whether the query was started: its question is registered."""
    return bool(await here.store.questions.load(stream))


@pytest.mark.guarantee("Shutdown")
async def test_with_redis_away_it_ends(
    durable_broker: Service, tmp_path: Path, fresh: Fresh
) -> None:
    port = free_port()
    with embedded.redis(tmp_path / "r", appendonly=True, port=port) as redis:
        async with busy(durable_broker.url, redis.url, tmp_path, fresh) as (here, worker, _, _):
            await here.redis.config_set("appendfsync", "always")
            await here.redis.shutdown(nosave=True)
            await here.until(lambda: says(tmp_path / "workers.log", "waits for Redis"))
            await ended(here, worker, time.monotonic())
            with embedded.redis(tmp_path / "r", appendonly=True, port=port):
                await assert_acknowledged_is_written(here)


@pytest.mark.guarantee("Shutdown")
async def test_with_kafka_away_it_ends(redis_url: str, tmp_path: Path, fresh: Fresh) -> None:
    if not (home := kafka_home()):
        pytest.skip("needs a Kafka to kill: set KAFKA_HOME")
    kafka = services.kafka(tmp_path / "kafka", home)
    try:
        async with busy(kafka.start().url, redis_url, tmp_path, fresh) as (here, worker, _, _):
            kafka.kill()
            await ended(here, worker, time.monotonic())
            kafka.start()
            await assert_acknowledged_is_written(here)
    finally:
        kafka.life.close()


@pytest.mark.guarantee("Shutdown")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(
    second: signal.Signals, broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    async with site(broker.url, redis_url, tmp_path, fresh, shutdown_timeout_seconds=600.0) as here:
        stream = fresh("stream")
        await here.send("tokens", stream, log_text(2, 1500).encode())
        worker = await here.start()
        await here.until(lambda: has_begun(here, stream))
        query = {"question": "which valve?", "deadline": 80}
        await here.send("queries", stream, json.dumps(query).encode())
        await here.until(lambda: is_registered(here, stream))
        worker.send_signal(signal.SIGTERM)
        await here.until(lambda: says(tmp_path / "workers.log", "stopping (SIGTERM)"))
        worker.send_signal(second)
        assert await asyncio.wait_for(worker.wait(), 10) == 128 + second
        assert await says(tmp_path / "workers.log", "ends before all is done")


@pytest.mark.guarantee("Shutdown")
async def test_draining_queries_has_a_time_limit() -> None:
    shutdown = Shutdown(0.02)
    shutdown.query_started()
    shutdown.query_started()
    shutdown.query_finished()
    await shutdown.drain()
    assert shutdown.open == 1
    shutdown.query_finished()
    await asyncio.wait_for(Shutdown(600).drain(), 10)


@pytest.mark.guarantee("Shutdown")
async def test_a_terminal_that_is_closed_ends_a_worker_like_sigterm_but_not_under_nohup(
    broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    async with site(broker.url, redis_url, tmp_path, fresh, prefix=fresh("p")) as here:

        async def listens() -> bool:
            return await client.workers(here.store) == 1

        worker = await here.start()
        await here.until(listens)
        assert await here.stop(worker, signal.SIGHUP) == 0
        ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` leaves it to a child
        try:
            worker = await here.start()
        finally:
            signal.signal(signal.SIGHUP, ignored)
        await here.until(listens)
        worker.send_signal(signal.SIGHUP)
        await here.send("tokens", "s", log_text(1, 40).encode())
        await here.until(lambda: has_begun(here, "s"))
        assert worker.returncode is None
