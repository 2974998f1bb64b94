"""The consumer skips nothing: records that Faust fetched and dropped are fetched again."""

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
    """Settings with a group that has committed nothing yet."""
    here = Settings(broker=broker.url, group=fresh("group"), **fresh_topics(fresh))
    await ensure_topics(here)
    return here


@pytest.fixture
def seen() -> "asyncio.Queue[int]":
    """Offsets of the first partition in the order of arrival."""
    return asyncio.Queue()


@pytest.fixture
async def app(
    settings: Settings, seen: "asyncio.Queue[int]", monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[App]:
    """An app that reads, and acknowledges nothing."""

    async def take(events: AsyncIterator[Any]) -> None:
        async for event in events:
            seen.put_nowait(event.message.offset)

    here = create_faust(settings)
    monkeypatch.setattr(
        here.shutdown, "begin", lambda: None
    )  # it would end this process after a while
    add_agent(here, raw_topic(here, settings.tokens_topic), take)
    here.finalize()
    await here.maybe_start()
    await until(lambda: bool(here.rebalancing_count and not here.rebalancing), seconds=WAIT_SECONDS)
    yield here
    await here.stop()


@pytest.mark.guarantee("At-least-once delivery")
async def test_records_fetched_as_the_flow_stops_are_read_when_it_resumes(
    app: App, settings: Settings, seen: "asyncio.Queue[int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer: Any = app.consumer
    fetch, seek, dropped = consumer._getmany, consumer.perform_seek, asyncio.Event()

    async def getmany(**options: Any) -> Any:
        records = await fetch(**options)
        if records and not dropped.is_set():
            consumer.stop_flow()
        return records

    async def perform_seek() -> None:
        await seek()
        dropped.set()

    monkeypatch.setattr(consumer, "_getmany", getmany)
    monkeypatch.setattr(consumer, "perform_seek", perform_seek)
    async with (
        AIOKafkaProducer(**auth.kafka(settings)) as producer,
        asyncio.timeout(WAIT_SECONDS),
    ):
        sent = 0
        while not dropped.is_set():
            await producer.send_and_wait(settings.tokens_topic, b"x", partition=0)
            sent += 1
        consumer.resume_flow()
        await producer.send_and_wait(settings.tokens_topic, b"x", partition=0)
        received: dict[int, None] = {}  # some are redelivered: nothing is acknowledged here
        while len(received) <= sent:
            received[await seen.get()] = None
    assert [*received] == [*range(sent + 1)]


@pytest.mark.guarantee("Kafka queries")
async def test_a_rebalance_does_not_wait_forever_for_unacknowledged_events(
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


async def test_a_rebalance_waits_for_a_batch_in_progress_for_a_while(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, done = cast(Any, app), asyncio.Event()
    monkeypatch.setattr(here, "ingest_idle", done.wait)
    waiting = asyncio.create_task(here._consumer_wait_empty(here.consumer, here.log))
    await until(lambda: bool(cast(Any, done)._waiters), seconds=WAIT_SECONDS)
    assert not waiting.done()
    done.set()
    async with asyncio.timeout(WAIT_SECONDS):
        await waiting
        done.clear()
        monkeypatch.setattr("stream_app.kafka.faust_app.DRAIN_SECONDS", 0.1)
        await here._consumer_wait_empty(here.consumer, here.log)


async def test_a_partition_full_before_a_rebalance_is_not_full_after_it(app: App) -> None:
    consumer: Any = app.consumer
    for tp in consumer.assignment():
        consumer.on_buffer_full(tp)
    await consumer.on_partitions_assigned(
        consumer.assignment(), cast(Any, app).consumer_generation_id
    )
    assert not consumer._buffered_partitions
    await until(lambda: consumer.flow_active, seconds=WAIT_SECONDS)


@pytest.mark.guarantee("At-least-once delivery")
async def test_nothing_is_read_during_a_rebalance(app: App) -> None:
    here: Any = app
    flowing = list[bool]()

    async def note(sender: Any, **_: Any) -> None:
        flowing.append(here.consumer.flow_active)

    here.on_rebalance_complete.connect(note, weak=False)
    assert here.consumer.flow_active
    await here.consumer.on_partitions_assigned(
        here.consumer.assignment(), here.consumer_generation_id
    )
    await until(lambda: here.consumer.flow_active, seconds=WAIT_SECONDS)
    assert flowing == [False]


@pytest.mark.guarantee("At-least-once delivery")
@pytest.mark.parametrize("when", ["on_rebalance_complete", "perform_seek"])
@pytest.mark.parametrize("given_out_anew", [False, True])
async def test_partitions_revoked_during_their_assignment_are_not_read(
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
    """A partition with three records that were read."""
    async with AIOKafkaProducer(**auth.kafka(settings)) as producer:
        for _ in range(3):
            await producer.send_and_wait(settings.tokens_topic, b"x", partition=0)
    assert [await seen.get() for _ in range(3)] == [0, 1, 2]
    return TP(settings.tokens_topic, 0)


async def test_the_noted_end_of_a_partition_counts_until_the_next_assignment(
    app: App, settings: Settings, seen: "asyncio.Queue[int]"
) -> None:
    consumer: Any = app.consumer
    async with asyncio.timeout(WAIT_SECONDS):
        tp = await three(app, settings, seen)
        consumer._thread.ended[tp] = 1
        assert (await consumer.highwaters(tp))[tp] == 1
        await consumer.perform_seek()
        assert (await consumer.highwaters(tp))[tp] == 3


async def test_a_partition_that_ends_before_its_committed_offset_is_read_from_its_first_record(
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
async def test_a_partition_with_space_again_is_polled_soon_while_all_were_full(
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
            pass  # a poll was in progress
        await producer.send_and_wait(settings.tokens_topic, b"x", partition=0)
        while await waits.get() != RESUME_SECONDS:
            pass
        assert seen.empty()
        for tp in full:
            consumer.on_buffer_drop(tp)
        assert await seen.get() == 0


@pytest.mark.guarantee("Backpressure")
async def test_while_one_partition_is_full_polls_of_the_others_are_short(
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


DISTANCES = (0, 0, 0, 1, 2, 7, 10**12)


@pytest.mark.guarantee("Missing offsets")
async def test_an_unbroken_row_of_acks_is_committed_across_missing_offsets(
    app: App,
) -> None:
    for seed in range(50):
        await commits_unbroken_row(app.consumer, TP("topic", seed), Random(seed))


async def commits_unbroken_row(consumer: Any, tp: TP, rng: Random) -> None:
    """Read offsets, acknowledge all but one in order, then that one; check each commit."""
    committed = consumer._committed_offset[tp] = rng.choice([None, 1, 2, 5])
    offsets, read = list[int](), committed - 1 if committed else None
    while len(offsets) < 12:
        offset = (offsets[-1] + 1 if offsets else committed or 0) + rng.choice(DISTANCES)
        consumer._read_offset[tp] = read
        assert consumer._single(tp, [record(tp, offset)])[0].offset == offset
        if read and offset - read > 1:  # as Faust does when it reads
            await consumer._add_gap(tp, read + 1, offset)
        offsets.append(offset)
        read = offset
    late = rng.randint(0, 11)
    consumer._acked[tp] += offsets[:late] + offsets[late + 1 :]
    assert consumer._new_offset(tp) == (offsets[late - 1] + 1 if late else None)
    if late:
        consumer._committed_offset[tp] = offsets[late - 1] + 1
    consumer._acked[tp].append(offsets[late])
    assert consumer._new_offset(tp) == offsets[-1] + 1
    consumer._committed_offset[tp] = offsets[-1] + 1
    assert consumer._new_offset(tp) is None  # nothing else is acknowledged
    del consumer._acked[tp]  # the app continues, and does not own this partition


@pytest.mark.guarantee("At-least-once delivery")
async def test_a_bundle_is_acknowledged_with_its_last_record(app: App) -> None:
    for seed in range(50):
        await commits_bundles(app.consumer, TP("topic", seed), Random(seed))


async def commits_bundles(consumer: Any, tp: TP, rng: Random) -> None:
    """Read polls, acknowledge them in order, and check each commit."""
    committed = consumer._committed_offset[tp] = rng.choice([None, 1, 9])
    read, at = committed - 1 if committed else None, (committed or 0) - 1
    for _ in range(12):
        offsets = [at := at + 1 + rng.choice(DISTANCES) for _ in range(rng.randint(1, 4))]
        consumer._read_offset[tp] = read
        [message] = consumer._bundled(tp, [record(tp, offset) for offset in offsets])
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
    del consumer._acked[tp]  # the app continues, and does not own this partition


def record(tp: TP, offset: int) -> Record:
    return Record(tp.topic, tp.partition, offset, 0, 0, None, b"x", None, -1, 1, [])
