"""A store with a `Health` waits while Redis is unavailable; it raises other errors at once."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.embedded import services
from stream_app.embedded.process import free_port
from stream_app.runtime import retry
from stream_app.runtime.retry import Health
from stream_app.store import scripts
from stream_app.store.connection import RedisError
from stream_app.store.retrying import without_retry
from stream_app.store.state import QuestionRecord
from stream_app.store.store import StreamStore
from tests.support.fakes import until

Fresh = Callable[[str], str]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without pauses."""
    monkeypatch.setattr(retry, "BACKOFF_SECONDS", (0.01,))


async def test_calls_wait_for_redis_and_succeed_when_it_returns(tmp_path: Path) -> None:
    port, health = free_port(), Health()
    async with Redis.from_url(f"redis://127.0.0.1:{port}") as redis:
        store = StreamStore(redis, health=health)
        calls = [
            store.register_streams([("s", "t/0")]),
            store.partitions.draw_epoch("t/0"),
            store.questions.ask("s", "q", QuestionRecord("q?")),
            store.load("s"),
        ]
        tasks = [asyncio.create_task(call) for call in calls]
        steps = {"register streams", "draw epoch", "ask", "load all"}
        await until(lambda: set(health.retrying) == steps)
        with services.redis(tmp_path / "redis", port=port):
            async with asyncio.timeout(20):
                await asyncio.gather(*tasks)
            assert health.ok and await store.streams() == ["s"]
            assert set(await store.questions.load("s")) == {"q"}


async def test_a_cancelled_call_does_not_count_as_waiting() -> None:
    health = Health()
    async with Redis.from_url(f"redis://127.0.0.1:{free_port()}") as redis:
        call = asyncio.create_task(StreamStore(redis, health=health).load("s"))
        await until(lambda: not health.ok)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    assert health.ok


async def test_without_a_health_the_error_is_raised_at_once() -> None:
    health = Health()
    async with Redis.from_url(f"redis://127.0.0.1:{free_port()}") as redis:
        for store in (StreamStore(redis), without_retry(StreamStore(redis, health=health))):
            with pytest.raises(RedisError):
                await store.load_all(["s"])
    assert health.ok


async def test_a_missing_script_is_raised_at_once(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> None:
        raise FileNotFoundError("commit.lua")

    health = Health()
    store = StreamStore(redis_client, health=health)
    monkeypatch.setattr(scripts.Script, "each", lost)
    with pytest.raises(FileNotFoundError):
        await store.extend_range([], 1)
    assert health.ok
    monkeypatch.setattr(scripts, "files", lambda package: Path("nowhere"))
    with pytest.raises(FileNotFoundError):
        StreamStore(redis_client)
