"""A worker under load; `python -m benchmarks load` is the long form, with figures.

Real workers on a real Kafka and a real Redis, with a model of the speed that each test needs.
Streams must equal an offline run.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.harness import loaded_worker
from benchmarks.harness.live_worker import guarded, process
from benchmarks.harness.loaded_worker import PARTITIONS, Loaded, Seen, lines
from benchmarks.load import burst, soak
from stream_app.embedded.process import free_port
from stream_app.embedded.services import Service
from stream_app.settings import Settings

LINES = 8
HOT_EVENTS = 2000  # a quarter of an hour for the crawling model
MINUTE = 60.0
CRAWLING = ["paced", "800"]  # tokens a second: eight segments


@pytest.fixture
def settings(durable_broker: Service, redis_url: str) -> Settings:
    """Settings for a real Kafka and a real Redis."""
    return Settings(broker=durable_broker.url, redis=redis_url)


async def send(here: Loaded, streams: list[str], partitions: list[int], each: int) -> None:
    """Send `each` events of every stream, round robin."""
    for number in range(each):
        for stream, partition in zip(streams, partitions, strict=True):
            await here.send(stream, lines(stream, number, LINES), partition)
    await here.producer.flush()


@pytest.mark.guarantee("Scheduling")
async def test_each_of_many_streams_is_complete_and_right(
    settings: Settings, tmp_path: Path
) -> None:
    async with loaded_worker.loaded(settings, tmp_path, ["free"]) as here:
        streams = here.names(500)
        await here.ask(streams)
        await send(here, streams, [i % PARTITIONS for i in range(len(streams))], 2)
        segments = await guarded(here.worker, here.log, here.complete(streams))
        assert segments >= len(streams)


async def is_held(here: Loaded) -> bool:
    """Whether more tokens are unscored than one partition may have, so that it is paused."""
    return (await here.look()).unscored > here.settings.max_lag_tokens


@pytest.mark.guarantee("Backpressure")
async def test_slow_streams_are_read_and_scored_while_a_hot_one_waits(
    settings: Settings, tmp_path: Path
) -> None:
    """The slow streams' events come when all of the hot one's are in Kafka and its partition is
    paused."""
    async with loaded_worker.loaded(
        settings, tmp_path, CRAWLING, max_lag_tokens=4096, on_lag="wait"
    ) as here:
        hot, *slow = here.names(7)
        await here.ask([hot, *slow])
        await send(here, [hot], [0], HOT_EVENTS)

        async def check() -> None:
            await here.until(lambda: is_held(here), "the hot stream is far behind")
            await send(here, slow, [1 + i % (PARTITIONS - 1) for i in range(len(slow))], 1)
            await here.complete(slow)
            assert await here.read(0) < HOT_EVENTS, "of the flood not all is read yet"

        await guarded(here.worker, here.log, check())


@pytest.mark.guarantee("Backpressure")
async def test_a_worker_far_behind_gives_its_partitions_up_and_what_it_held_is_read_again(
    settings: Settings, tmp_path: Path
) -> None:
    """The first worker would need minutes to score what it has read; the second one's model costs
    nothing."""
    async with loaded_worker.loaded(
        settings, tmp_path, CRAWLING, max_lag_tokens=4096, on_lag="wait"
    ) as here:
        streams, log = here.names(PARTITIONS), tmp_path / "second.log"
        await here.ask(streams)
        await send(here, streams, [*range(PARTITIONS)], 250)
        await guarded(
            here.worker, here.log, here.until(lambda: is_held(here), "all are far behind")
        )
        second = replace(here, settings=here.settings.replace(http_port=free_port()))

        async def take_over() -> None:
            await here.until(second.is_ready, "the second worker has partitions")
            here.worker.terminate()
            await here.worker.wait()
            await here.complete(streams)

        command = ["-m", "benchmarks.harness.stub_workers", "free"]
        async with process(second.settings, log, command, {"OMP_NUM_THREADS": "1"}) as other:
            await guarded(other, log, take_over())


@pytest.mark.guarantee("Backpressure")
async def test_a_burst_is_read_no_faster_than_it_may_be_and_all_comes_through(
    settings: Settings, tmp_path: Path
) -> None:
    figures = await burst.measure(settings, tmp_path, 0.15, 20_000, 2048)
    assert figures["segments right"] > 0
    assert 0 < figures["most tokens unscored"] <= figures["their bound"]


async def test_a_soak_ends_with_all_scored_and_its_plot(settings: Settings, tmp_path: Path) -> None:
    figures = await soak.measure(settings, tmp_path, 2.0, tmp_path / "soak.png")
    assert figures["segments right"] > 0
    assert (tmp_path / "soak.png").stat().st_size > 1000


def test_what_is_flat_has_no_growth_and_what_is_not_has() -> None:
    flat = [Seen(i * MINUTE, 400.0, 100.0) for i in range(8)]
    assert soak.growth(flat)["rss growth"] == 0
    assert soak.growth(flat)["minutes"] == 7
    rising = [Seen(i * MINUTE, 400.0 + 10 * i, 1000.0 * i) for i in range(8)]
    found = soak.growth(rising)
    assert found["rss growth"] == pytest.approx(40 / 425)
    assert found["unscored growth, s of scoring"] == 4000 / soak.SPEED
