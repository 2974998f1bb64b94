"""PartitionBuffers: each partition's events leave in order, none is lost, and a throttled partition
blocks no other.
"""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.ingest.buffers import BATCH_EVENTS, BUFFER_EVENTS, PartitionBuffers, size
from stream_app.kafka.records import BundledEvent
from tests.support.fakes import Event, Message, coming, poll, until

MAX_BYTES = 25
PARTITIONS = 3
# A partition's number, and how many of its events arrive at once. None: a batch is taken.
MAX_POLL = 4
POLLS = st.tuples(st.integers(0, PARTITIONS - 1), st.integers(1, MAX_POLL))
ARRIVALS = st.lists(st.one_of(st.none(), POLLS), max_size=150)


class Source:
    """Creates events, and stops fetching a partition that is paused."""

    def __init__(self, throttled: set[str] | None = None) -> None:
        self.throttled = throttled or set()
        self.paused = set[tuple[str, int]]()
        self.discarded = list[Any]()
        self.offsets = Counter[int]()
        self.buffers = PartitionBuffers(
            MAX_BYTES,
            lambda message: f"t/{message.partition}",
            lambda: self.throttled,
            pause=self.paused.add,
            resume=self.paused.discard,
            discard=self.discarded.append,
        )

    def event(self, partition: int, value: bytes = b"x" * 10) -> Event:
        """The partition's next event."""
        self.offsets[partition] += 1
        return Event(Message("t", partition, self.offsets[partition], 0, None, value))

    def poll(self, partition: int, size: int) -> list[Event]:
        """Put several events at once."""
        self.buffers.put(events := [self.event(partition) for _ in range(size)])
        return events

    def put(self, partition: int, value: bytes = b"x" * 10) -> Event:
        """Put one event."""
        self.buffers.put([event := self.event(partition, value)])
        return event

    def is_paused(self, partition: int) -> bool:
        return ("t", partition) in self.paused


@pytest.mark.guarantee("Backpressure")
@given(ARRIVALS)
async def test_events_leave_in_the_order_of_their_partition_and_none_is_lost(
    arrivals: list[tuple[int, int] | None],
) -> None:
    source, put, taken = Source(), list[Any](), list[Any]()
    for step in arrivals:
        if step is not None:
            put += source.poll(*step)
        elif not source.buffers.empty:
            taken += await source.buffers.batch()
    while not source.buffers.empty:
        taken += await source.buffers.batch()
    assert {*taken} == {*put} and len(taken) == len(put)
    for partition in range(PARTITIONS):
        assert [e for e in taken if e.message.partition == partition] == [
            e for e in put if e.message.partition == partition
        ]
    assert not source.paused


@pytest.mark.guarantee("Bounded memory")
@given(ARRIVALS, st.sets(st.sampled_from(["t/0", "t/1"])))
async def test_no_buffer_exceeds_its_bytes_by_more_than_a_poll_if_pauses_are_heeded(
    arrivals: list[tuple[int, int] | None], throttled: set[str]
) -> None:
    source = Source(throttled)
    for step in arrivals:
        if step is not None and not source.is_paused(step[0]):
            source.poll(*step)
        elif step is None and source.buffers.buffers.keys() - throttled:
            batch = await source.buffers.batch()
            assert sum(map(size, batch)) < MAX_BYTES + 10
            assert not {f"t/{e.message.partition}" for e in batch} & throttled
        most = MAX_BYTES + 10 * MAX_POLL
        assert all(buffer.bytes < most for buffer in source.buffers.buffers.values())
        full = {
            buffer.partition
            for buffer in source.buffers.buffers.values()
            if buffer.bytes >= MAX_BYTES
        }
        assert source.paused == full


@pytest.mark.guarantee("Backpressure")
async def test_a_throttled_partition_blocks_no_other() -> None:
    source = Source({"t/0"})
    hot = [source.put(0) for _ in range(9)]
    waiting = asyncio.create_task(source.buffers.batch())
    await asyncio.sleep(0)
    assert not waiting.done()
    slow = source.put(1)
    assert await waiting == [slow]
    source.throttled.clear()
    waiting = asyncio.create_task(source.buffers.batch())
    source.buffers.wake()
    assert await waiting == hot[:3]


@pytest.mark.guarantee("Backpressure")
async def test_buffers_take_turns_however_large_the_events_of_others() -> None:
    source = Source()
    large = [source.put(0, b"x" * 99) for _ in range(2)]
    small = [source.put(1), source.put(2)]
    assert await source.buffers.batch() == large[:1]
    assert await source.buffers.batch() == [*small, large[1]]


@pytest.mark.guarantee("Bounded memory")
async def test_a_buffer_has_a_limit_of_events_too() -> None:
    source = Source()
    for _ in range(BUFFER_EVENTS):
        assert not source.is_paused(0)
        source.put(0, b"")
    assert source.is_paused(0)
    assert len(await source.buffers.batch()) == BATCH_EVENTS
    assert not source.is_paused(0)


@pytest.mark.guarantee("Backpressure")
async def test_cleared_events_are_discarded_and_later_ones_are_taken() -> None:
    source = Source({"t/0"})
    dropped = [source.put(0) for _ in range(4)] + [source.put(1)]
    source.buffers.clear()
    assert (source.discarded, source.buffers.empty) == (dropped, True)
    assert not [event for event in dropped if event.acked]
    later = source.put(1)
    assert await source.buffers.batch() == [later]


async def test_filling_never_waits_for_space() -> None:
    source = Source({"t/0"})
    throttled, last = [source.event(0) for _ in range(50)], source.event(1)
    polls = [poll([event]) for event in (*throttled, last)]
    filling = asyncio.create_task(source.buffers.fill(coming(polls)))
    await until(filling.done)
    assert [event.message for event in await source.buffers.batch()] == [last.message]
    assert source.is_paused(0)


@pytest.mark.guarantee("At-least-once delivery")
async def test_a_bundle_is_acknowledged_with_its_last_event() -> None:
    source = Source()
    polls = [poll([source.event(0, b"") for _ in range(count)]) for count in (3, 1, 400, 200)]
    await source.buffers.fill(coming(polls))
    acked, offsets = list[Event](), list[int]()
    while not source.buffers.empty:
        for event in await source.buffers.batch():
            offsets.append(event.message.offset)
            assert isinstance(event, BundledEvent)
            if event.ack():
                assert isinstance(event.bundle, Event)
                acked.append(event.bundle)
                assert event.message.offset == event.bundle.message.offset
    assert offsets == [*range(1, 605)]
    assert not any(each.message.value for each in polls), "what is done is not throttled on to"
    assert acked == polls and all(each.acked == [each] for each in polls)
