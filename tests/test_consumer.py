"""The consumer passes over nothing: what Faust fetched and threw away is fetched again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from stream_app import access, agents
from stream_app.app import App, create_faust, raw_topic
from stream_app.embedded import Service
from stream_app.settings import Settings
from stream_app.topics import TOPICS, ensure_topics

WAIT_SECONDS = 60.0


@pytest.fixture
async def settings(broker: Service, fresh: Callable[[str], str]) -> Settings:
    """Of a group that has committed nothing yet."""
    topics: dict[str, Any] = {f"{name}_topic": fresh(name) for name in TOPICS}
    here = Settings(broker=broker.url, group=fresh("group"), **topics)
    await ensure_topics(here)
    return here


@pytest.fixture
def seen() -> "asyncio.Queue[int]":
    """Offsets of the first partition, as they come."""
    return asyncio.Queue()


@pytest.fixture
async def app(
    settings: Settings, seen: "asyncio.Queue[int]", monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[App]:
    """One that reads, and acknowledges nothing."""

    async def take(events: AsyncIterator[Any]) -> None:
        async for event in events:
            seen.put_nowait(event.message.offset)

    here = create_faust(settings)
    monkeypatch.setattr(here.stopping, "begin", lambda: None)  # would end this process in time
    agents.agent(here, raw_topic(here, settings.tokens_topic), take)
    here.finalize()
    await here.maybe_start()
    await until(lambda: bool(here.rebalancing_count and not here.rebalancing))
    yield here
    await here.stop()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.05)


async def test_what_is_fetched_as_the_flow_stops_is_read_when_it_goes_on(
    app: App, settings: Settings, seen: "asyncio.Queue[int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer: Any = app.consumer
    fetch, seek, thrown_away = consumer._getmany, consumer.perform_seek, asyncio.Event()

    async def getmany(**options: Any) -> Any:
        records = await fetch(**options)
        if records and not thrown_away.is_set():
            consumer.stop_flow()
        return records

    async def perform_seek() -> None:
        await seek()
        thrown_away.set()

    monkeypatch.setattr(consumer, "_getmany", getmany)
    monkeypatch.setattr(consumer, "perform_seek", perform_seek)
    async with (
        AIOKafkaProducer(**access.kafka(settings)) as producer,
        asyncio.timeout(WAIT_SECONDS),
    ):
        sent = 0
        while not thrown_away.is_set():
            await producer.send_and_wait(settings.tokens_topic, b"x", partition=0)
            sent += 1
        consumer.resume_flow()
        await producer.send_and_wait(settings.tokens_topic, b"x", partition=0)
        came: list[int] = []  # without those that come again: nothing is acknowledged here
        while len(came) <= sent:
            came += {await seen.get()}.difference(came)
    assert came == [*range(sent + 1)]


async def test_a_rebalance_that_begins_while_the_last_one_ends_finds_nothing_read_on(
    app: App,
) -> None:
    async def next_one(sender: Any, **_: Any) -> None:
        app.on_rebalance_start()

    here: Any = app
    here.on_rebalance_complete.connect(next_one, weak=False)
    here.consumer.stop_flow()
    await here.tables.recovery._resume_streams(generation_id=here.consumer_generation_id)
    assert not here.consumer.flow_active
