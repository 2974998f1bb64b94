"""A worker is ready when there is no reason not to be."""

import asyncio
import json
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from stream_app.embedded import services
from stream_app.monitoring import readiness
from stream_app.monitoring.readiness import Readiness
from stream_app.runtime.retry import Health
from stream_app.settings import Settings
from stream_app.store.store import StreamStore
from tests.support.fakes import until

Fresh = Callable[[str], str]


async def test_a_worker_is_ready_when_nothing_is_lacking(
    redis_client: Redis, broker: services.Service
) -> None:
    health, assigned = Health(), [False]
    ready = Readiness(
        Settings(broker=broker.url), StreamStore(redis_client), health, lambda: assigned[0]
    )
    assert await ready.reasons() == {"partitions": "not assigned now"}
    assigned[0] = True
    assert await ready.reasons() == {}
    with health.track("scoring") as retry:
        retry.failed(OSError("Redis is full"))
        assert await ready.reasons() == {"step scoring": "waits: Redis is full"}


@pytest.mark.guarantee("Logs and metrics")
async def test_concurrent_callers_share_one_probe(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes, kafka = list[str](), asyncio.Event()
    ready = Readiness(Settings(), StreamStore(redis_client), Health(), lambda: True)

    async def probe() -> str:
        probes.append("kafka")
        await kafka.wait()
        return "away" if len(probes) == 1 else ""

    monkeypatch.setattr(ready, "_probe_kafka", probe)
    all_ = [asyncio.create_task(ready.reasons()) for _ in range(100)]
    await until(lambda: probes)
    all_[0].cancel()
    kafka.set()
    assert await asyncio.gather(*all_[1:]) == [{"kafka": "away"}] * 99
    assert await ready.reasons() == {"kafka": "away"} and len(probes) == 1
    monkeypatch.setattr(readiness, "CACHE_SECONDS", 0.0)
    assert await ready.reasons() == {} and len(probes) == 2


async def test_unreachable_services_are_reasons_without_a_password() -> None:
    nowhere = "redis://user:secret@127.0.0.1:1"
    settings = Settings(broker="kafka://127.0.0.1:1", redis=nowhere)
    async with Redis.from_url(nowhere) as redis:
        reasons = await Readiness(settings, StreamStore(redis), Health(), lambda: True).reasons()
    assert set(reasons) == {"redis", "kafka"}
    assert "secret" not in json.dumps(reasons)
