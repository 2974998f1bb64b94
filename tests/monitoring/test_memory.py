"""The memory of streams in Redis is counted for a few streams at a time."""

from collections.abc import Callable

import pytest

from stream_app.monitoring import memory
from stream_app.store.keys import DEFAULT_KEYS as keys
from tests.support.monitored import MonitoredWorker

Fresh = Callable[[str], str]


@pytest.mark.guarantee("Logs and metrics")
async def test_memory_is_estimated_from_a_few_streams_at_a_time(
    world: MonitoredWorker, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [fresh("stream") for _ in range(4)]
    for i, stream in enumerate(names):
        await world.set(stream)
        await world.grow(stream, 5 + 20 * i)
    sizes = [(await world.store.memory_usage(stream))[0] for stream in names]
    assert sizes == sorted(sizes) and sizes[0] > 0
    assert world.value("xl3m_redis_memory_bytes") == 0
    monkeypatch.setattr(memory, "MAX_COMMANDS", 12)  # two streams of eleven
    await world.memory.sample()
    assert [*world.memory.sizes] == names[:2]
    assert world.value("xl3m_redis_memory_bytes") == 2 * sum(sizes[:2])
    await world.memory.sample()
    assert world.value("xl3m_redis_memory_bytes") == sum(sizes)
    assert world.value("xl3m_redis_largest_stream_bytes") == sizes[-1]
    await world.memory.sample()
    assert [*world.memory.sizes] == names[2:] + names[:2]
    world.scorer.streams.disown(names[1:])
    assert (
        world.value("xl3m_redis_memory_bytes")
        == world.value("xl3m_redis_largest_stream_bytes")
        == sizes[0]
    )


async def test_the_memory_of_a_stream_is_that_of_its_keys(
    world: MonitoredWorker, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await world.set(stream)
    await world.grow(stream, 9)
    while await world.scorer.step():
        pass
    redis = world.store.redis
    names = [name async for name in redis.scan_iter(keys.of_stream(stream))]
    assert len(names) == 8
    size, commands = await world.store.memory_usage(stream)
    assert size == sum([await redis.memory_usage(name) for name in names])
    assert commands == 2 + 4 + 5
