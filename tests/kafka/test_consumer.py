"""The consumer passes over nothing: what Faust fetched and threw away is fetched again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from random import Random
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from faust.tables.recovery import RebalanceAgain
from faust.types import TP

from stream_app.embedded.services import Service
from stream_app.kafka import auth
from stream_app.kafka.consumer import RESUME_SECONDS, Consumer
from stream_app.kafka.faust_app import App, add_agent, create_faust, raw_topic
from stream_app.kafka.records import Record
from stream_app.kafka.topics import ensure_topics
from stream_app.settings import Settings
from tests.support.fakes import until
from tests.support.workers import WAIT_SECONDS, fresh_topics


@pytest.fixture
async def settings(broker: Service, fresh: Callable[[str], str]) -> Settings:
    """Of a group that has committed nothing yet."""
    here = Settings(broker=broker.url, group=fresh("group"), **fresh_topics(fresh))
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
    monkeypatch.setattr(here.shutdown, "begin", lambda: None)  # would end this process in time
    add_agent(here, raw_topic(here, settings.tokens_topic), take)
    here.finalize()
    await here.maybe_start()
    await until(lambda: bool(here.rebalancing_count and not here.rebalancing), WAIT_SECONDS)
    yield here
    await here.stop()


@pytest.mark.guarantee("At-least-once delivery")
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
        AIOKafkaProducer(**auth.kafka(settings)) as producer,
        asyncio.timeout(WAIT_SECONDS),
    ):
        sent = 0
        while not thrown_away.is_set():
            await producer.send_and_wait(settings.tokens_topic, b"x", partition=0)
            sent += 1
        consumer.resume_flow()
        await producer.send_and_wait(settings.tokens_topic, b"x", partition=0)
        came: dict[int, None] = {}  # some come again: nothing is acknowledged here
        while len(came) <= sent:
            came[await seen.get()] = None
    assert [*came] == [*range(sent + 1)]


@pytest.mark.guarantee("Kafka queries")
async def test_a_rebalance_does_not_wait_for_ever_for_what_is_not_acknowledged(
    app: App, settings: Settings, seen: "asyncio.Queue[int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.kafka.faust_app.DRAIN_SECONDS", 0.1)
    here: Any = app
    async with (
        AIOKafkaProducer(**auth.kafka(settings)) as producer,
        asyncio.timeout(WAIT_SECONDS),
    ):
        await producer.send_and_wait(settings.tokens_topic, b"x", partition=0)
        await seen.get()
        assert here.consumer.unacked
        await here._consumer_wait_empty(here.consumer, here.log)
        committed = await here.consumer.seek_to_committed()
    assert not any(committed.values()), "nothing was acknowledged for that"


async def test_a_rebalance_waits_for_what_is_being_worked_on_for_a_while(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, done = cast(Any, app), asyncio.Event()
    monkeypatch.setattr(here, "ingest_idle", done.wait)
    waiting = asyncio.create_task(here._consumer_wait_empty(here.consumer, here.log))
    await until(lambda: bool(cast(Any, done)._waiters), WAIT_SECONDS)
    assert not waiting.done()
    done.set()
    async with asyncio.timeout(WAIT_SECONDS):
        await waiting
        done.clear()
        monkeypatch.setattr("stream_app.kafka.faust_app.DRAIN_SECONDS", 0.1)
        await here._consumer_wait_empty(here.consumer, here.log)


async def test_what_was_full_before_a_rebalance_is_not_full_any_more(app: App) -> None:
    consumer: Any = app.consumer
    for tp in consumer.assignment():
        consumer.on_buffer_full(tp)
    await consumer.on_partitions_assigned(
        consumer.assignment(), cast(Any, app).consumer_generation_id
    )
    assert not consumer._buffered_partitions
    await until(lambda: consumer.flow_active, WAIT_SECONDS)


@pytest.mark.guarantee("At-least-once delivery")
async def test_nothing_is_read_while_partitions_are_given_out(app: App) -> None:
    here: Any = app
    flowing = list[bool]()

    async def look(sender: Any, **_: Any) -> None:
        flowing.append(here.consumer.flow_active)

    here.on_rebalance_complete.connect(look, weak=False)
    assert here.consumer.flow_active
    await here.consumer.on_partitions_assigned(
        here.consumer.assignment(), here.consumer_generation_id
    )
    await until(lambda: here.consumer.flow_active, WAIT_SECONDS)
    assert flowing == [False]


@pytest.mark.guarantee("At-least-once delivery")
@pytest.mark.parametrize("when", ["on_rebalance_complete", "perform_seek"])
@pytest.mark.parametrize("given_out_anew", [False, True])
async def test_partitions_called_back_while_they_are_taken_over_are_not_read_on(
    app: App, monkeypatch: pytest.MonkeyPatch, when: str, given_out_anew: bool
) -> None:
    here: Any = app
    generation = here.consumer_generation_id
    find = Consumer.seek_to_committed

    async def call_back(*_: Any, **__: Any) -> Any:
        await here._on_partitions_revoked(here.consumer.assignment())
        if given_out_anew:
            here.consumer_generation_id = generation + 1
        return await find(here.consumer)

    if when == "perform_seek":
        monkeypatch.setattr(here.consumer, "seek_to_committed", call_back)
    else:
        here.on_rebalance_complete.connect(call_back, weak=False)
    with suppress(RebalanceAgain):
        await here.tables.recovery._resume_streams(generation_id=generation)
    assert not here.consumer.flow_active


async def three(app: App, settings: Settings, seen: "asyncio.Queue[int]") -> TP:
    """A partition of three records, which were read."""
    async with AIOKafkaProducer(**auth.kafka(settings)) as producer:
        for _ in range(3):
            await producer.send_and_wait(settings.tokens_topic, b"x", partition=0)
    assert [await seen.get() for _ in range(3)] == [0, 1, 2]
    return TP(settings.tokens_topic, 0)


async def test_where_a_partition_was_seen_to_end_counts_until_it_is_taken_over(
    app: App, settings: Settings, seen: "asyncio.Queue[int]"
) -> None:
    consumer: Any = app.consumer
    async with asyncio.timeout(WAIT_SECONDS):
        tp = await three(app, settings, seen)
        consumer._thread.ended[tp] = 1
        assert (await consumer.highwaters(tp))[tp] == 1
        await consumer.perform_seek()
        assert (await consumer.highwaters(tp))[tp] == 3


async def test_a_partition_that_ends_before_what_is_committed_is_read_from_its_first_record(
    app: App, settings: Settings, seen: "asyncio.Queue[int]"
) -> None:
    consumer: Any = app.consumer
    async with asyncio.timeout(WAIT_SECONDS):
        tp = await three(app, settings, seen)
        assert await consumer.commit_offsets({tp: 3})
        consumer._thread.ended[tp] = 1
        await consumer.perform_seek()
        assert [await seen.get() for _ in range(3)] == [0, 1, 2]


async def test_without_partitions_nothing_is_committed(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.consumer, "assignment", set)
    consumer: Any = app.consumer
    assert await consumer.seek_to_committed() == {}


@pytest.mark.guarantee("Backpressure")
async def test_while_all_partitions_are_full_it_is_soon_seen_that_one_has_room_again(
    app: App, settings: Settings, seen: "asyncio.Queue[int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer: Any = app.consumer
    sleep, waits = consumer.sleep, asyncio.Queue[float]()

    async def pause(seconds: float) -> None:
        waits.put_nowait(seconds)
        await sleep(seconds)

    monkeypatch.setattr(consumer, "sleep", pause)
    full = [*consumer.assignment()]
    async with (
        AIOKafkaProducer(**auth.kafka(settings)) as producer,
        asyncio.timeout(WAIT_SECONDS),
    ):
        for tp in full:
            consumer.on_buffer_full(tp)
        while await waits.get() != RESUME_SECONDS:
            pass  # a poll was under way
        await producer.send_and_wait(settings.tokens_topic, b"x", partition=0)
        while await waits.get() != RESUME_SECONDS:
            pass
        assert seen.empty()
        for tp in full:
            consumer.on_buffer_drop(tp)
        assert await seen.get() == 0


@pytest.mark.guarantee("Backpressure")
async def test_while_a_partition_is_full_no_poll_of_the_others_takes_long(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer: Any = app.consumer
    poll, timeouts = consumer._thread.getmany, asyncio.Queue[float]()

    async def getmany(partitions: Any, timeout: float) -> Any:
        timeouts.put_nowait(timeout)
        return await poll(partitions, timeout)

    monkeypatch.setattr(consumer._thread, "getmany", getmany)
    [tp, *_] = consumer.assignment()
    async with asyncio.timeout(WAIT_SECONDS):
        assert await timeouts.get() > RESUME_SECONDS
        consumer.on_buffer_full(tp)
        while await timeouts.get() > RESUME_SECONDS:
            pass
        consumer.on_buffer_drop(tp)
        while await timeouts.get() == RESUME_SECONDS:
            pass


GAPS = (0, 0, 0, 1, 2, 7, 10**12)


@pytest.mark.guarantee("Missing offsets")
async def test_what_is_acknowledged_without_a_hole_is_committed_whatever_never_came(
    app: App,
) -> None:
    for seed in range(50):
        await commits_what_has_no_hole(app.consumer, TP("topic", seed), Random(seed))


async def commits_what_has_no_hole(consumer: Any, tp: TP, rng: Random) -> None:
    """Read some offsets, acknowledge them in their order but for one, and look at each commit."""
    committed = consumer._committed_offset[tp] = rng.choice([None, 1, 2, 5])
    came, read = list[int](), committed - 1 if committed else None
    while len(came) < 12:
        offset = (came[-1] + 1 if came else committed or 0) + rng.choice(GAPS)
        consumer._read_offset[tp] = read
        assert consumer._each(tp, [record(tp, offset)])[0].offset == offset
        if read and offset - read > 1:  # as Faust does when it reads
            await consumer._add_gap(tp, read + 1, offset)
        came.append(offset)
        read = offset
    late = rng.randint(0, 11)
    consumer._acked[tp] += came[:late] + came[late + 1 :]
    assert consumer._new_offset(tp) == (came[late - 1] + 1 if late else None)
    if late:
        consumer._committed_offset[tp] = came[late - 1] + 1
    consumer._acked[tp].append(came[late])
    assert consumer._new_offset(tp) == came[-1] + 1
    consumer._committed_offset[tp] = came[-1] + 1
    assert consumer._new_offset(tp) is None  # nothing more is acknowledged
    del consumer._acked[tp]  # the app goes on, and has no such partition


@pytest.mark.guarantee("At-least-once delivery")
async def test_what_comes_together_is_acknowledged_with_its_last(app: App) -> None:
    for seed in range(50):
        await commits_whole_polls(app.consumer, TP("topic", seed), Random(seed))


async def commits_whole_polls(consumer: Any, tp: TP, rng: Random) -> None:
    """Read some polls, acknowledge them in their order, and look at each commit."""
    committed = consumer._committed_offset[tp] = rng.choice([None, 1, 9])
    read, at = committed - 1 if committed else None, (committed or 0) - 1
    for _ in range(12):
        offsets = [at := at + 1 + rng.choice(GAPS) for _ in range(rng.randint(1, 4))]
        consumer._read_offset[tp] = read
        [message] = consumer._together(tp, [record(tp, offset) for offset in offsets])
        assert message.offset == offsets[-1]
        assert [each.offset for each in message.value] == offsets
        if read and message.offset - read > 1:  # as Faust does when it reads
            await consumer._add_gap(tp, read + 1, message.offset)
        read = message.offset
        consumer._acked[tp].append(message.offset)
        if rng.random() < 0.5:
            assert consumer._new_offset(tp) == offsets[-1] + 1
            consumer._committed_offset[tp] = offsets[-1] + 1
            assert consumer._new_offset(tp) is None
    assert not consumer._acked[tp] or consumer._new_offset(tp) == at + 1
    del consumer._acked[tp]  # the app goes on, and has no such partition


def record(tp: TP, offset: int) -> Record:
    return Record(tp.topic, tp.partition, offset, 0, 0, None, b"x", None, -1, 1, [])
