"""A worker under load, in small: `python -m benchmarks load` is the long form, with the figures.

Real workers on a real Kafka and a real Redis, with a model as fast as each test needs it. What
streams come to is held against an offline run.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import load_burst, load_soak, loaded
from benchmarks.live import guarded, process
from benchmarks.loaded import PARTITIONS, Loaded, Seen, lines
from stream_app.child import free_port
from stream_app.embedded import Service
from stream_app.settings import Settings

LINES = 8
MINUTE = 60.0


@pytest.fixture
def settings(durable_broker: Service, redis_url: str) -> Settings:
    """Those of a real Kafka and a Redis."""
    return Settings(broker=durable_broker.url, redis=redis_url)


async def send(here: Loaded, streams: list[str], partitions: list[int], each: int) -> None:
    """So many events of every stream, in turns."""
    for number in range(each):
        for stream, partition in zip(streams, partitions, strict=True):
            await here.send(stream, lines(stream, number, LINES), partition)
    await here.producer.flush()


async def test_each_of_many_streams_is_complete_and_right(
    settings: Settings, tmp_path: Path
) -> None:
    async with loaded.loaded(settings, tmp_path, ["free"]) as here:
        streams = here.names(500)
        await here.ask(streams)
        await send(here, streams, [i % PARTITIONS for i in range(len(streams))], 2)
        segments = await guarded(here.worker, here.log, here.complete(streams))
        assert segments >= len(streams)


async def test_slow_streams_are_read_and_scored_while_a_hot_one_waits(
    settings: Settings, tmp_path: Path
) -> None:
    """All of the flood is in Kafka, and its partition held, when the slow ones' events come."""
    model, backlog = ["paced", "400"], 4096
    async with loaded.loaded(settings, tmp_path, model, backlog_tokens=backlog) as here:
        hot, *slow = here.names(7)
        await here.ask([hot, *slow])
        await send(here, [hot], [0], 2000)

        async def is_held() -> bool:
            return (await here.look()).unscored > backlog

        async def check() -> None:
            await here.until(is_held, "the hot stream is far behind")
            held = (await here.store.load(hot)).cursor
            await send(here, slow, [1 + i % (PARTITIONS - 1) for i in range(len(slow))], 1)
            await here.complete(slow)
            assert (await here.store.load(hot)).cursor == held

        await guarded(here.worker, here.log, check())


async def test_a_burst_leaves_the_worker_small_and_all_comes_through_though_another_joins(
    settings: Settings, tmp_path: Path
) -> None:
    speed, seconds, backlog = 20_000, 0.4, 2048
    model = ["paced", str(speed)]
    async with loaded.loaded(settings, tmp_path, model, backlog_tokens=backlog) as here:
        second, log = replace(here.settings, http_port=free_port()), tmp_path / "second.log"
        running = asyncio.create_task(
            guarded(here.worker, here.log, load_burst.run(here, seconds, speed))
        )
        command = ["-m", "benchmarks.carriers", *model]
        await here.until(lambda: under_way(here), "the burst is under way")
        async with process(second, log, command, {"OMP_NUM_THREADS": "1"}) as other:
            figures = await guarded(other, log, running_to_its_end(running))
        assert figures["segments right"] > 0
        assert 0 < figures["most tokens unscored"] <= figures["their bound"]


async def under_way(here: Loaded) -> bool:
    return await here.read() > 2 * load_burst.STREAMS


async def running_to_its_end(task: "asyncio.Task[dict[str, float]]") -> dict[str, float]:
    return await task


async def test_a_soak_ends_with_all_scored_and_its_plot(settings: Settings, tmp_path: Path) -> None:
    figures = await load_soak.measure(settings, tmp_path, 3.0, tmp_path / "soak.png")
    assert figures["segments right"] > 0
    assert (tmp_path / "soak.png").stat().st_size > 1000


def test_what_is_flat_has_no_growth_and_what_is_not_has() -> None:
    flat = [Seen(i * MINUTE, 400.0, 100.0) for i in range(8)]
    assert load_soak.growth(flat)["rss growth"] == 0
    assert load_soak.growth(flat)["minutes"] == 7
    rising = [Seen(i * MINUTE, 400.0 + 10 * i, 1000.0 * i) for i in range(8)]
    found = load_soak.growth(rising)
    assert found["rss growth"] == pytest.approx(40 / 425)
    assert found["unscored growth, s of scoring"] == 4000 / load_soak.SPEED
