"""Queues: whatever comes in whatever order, each partition's events leave in theirs, none is lost,
and what is held in one queue holds up no other.
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
# A partition's number, and how many events of it come at once. None: a batch is taken.
MOST = 4
POLLS = st.tuples(st.integers(0, PARTITIONS - 1), st.integers(1, MOST))
COMINGS = st.lists(st.one_of(st.none(), POLLS), max_size=150)


class Source:
    """Makes events, and stops fetching where it is told to."""

    def __init__(self, held: set[str] | None = None) -> None:
        self.throttled = held or set()
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
        """The partition's next one."""
        self.offsets[partition] += 1
        return Event(Message("t", partition, self.offsets[partition], 0, None, value))

    def poll(self, partition: int, size: int) -> list[Event]:
        """So many at once."""
        self.buffers.put(events := [self.event(partition) for _ in range(size)])
        return events

    def put(self, partition: int, value: bytes = b"x" * 10) -> Event:
        """It comes in."""
        self.buffers.put([event := self.event(partition, value)])
        return event

    def is_paused(self, partition: int) -> bool:
        return ("t", partition) in self.paused


@pytest.mark.guarantee("Backpressure")
@given(COMINGS)
async def test_events_leave_in_the_order_of_their_partition_and_none_is_lost(
    comings: list[tuple[int, int] | None],
) -> None:
    source, put, taken = Source(), list[Any](), list[Any]()
    for step in comings:
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
@given(COMINGS, st.sets(st.sampled_from(["t/0", "t/1"])))
async def test_a_source_that_heeds_pauses_fills_no_queue_beyond_its_bytes_and_a_poll(
    comings: list[tuple[int, int] | None], held: set[str]
) -> None:
    source = Source(held)
    for step in comings:
        if step is not None and not source.is_paused(step[0]):
            source.poll(*step)
        elif step is None and source.buffers.buffers.keys() - held:
            batch = await source.buffers.batch()
            assert sum(map(size, batch)) < MAX_BYTES + 10
            assert not {f"t/{e.message.partition}" for e in batch} & held
        most = MAX_BYTES + 10 * MOST
        assert all(queue.bytes < most for queue in source.buffers.buffers.values())
        full = {
            queue.partition for queue in source.buffers.buffers.values() if queue.bytes >= MAX_BYTES
        }
        assert source.paused == full


@pytest.mark.guarantee("Backpressure")
async def test_what_is_held_in_one_queue_holds_up_no_other() -> None:
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
async def test_queues_have_their_turn_however_large_the_events_of_others() -> None:
    source = Source()
    large = [source.put(0, b"x" * 99) for _ in range(2)]
    small = [source.put(1), source.put(2)]
    assert await source.buffers.batch() == large[:1]
    assert await source.buffers.batch() == [*small, large[1]]


@pytest.mark.guarantee("Bounded memory")
async def test_a_queue_has_a_bound_of_events_too() -> None:
    source = Source()
    for _ in range(BUFFER_EVENTS):
        assert not source.is_paused(0)
        source.put(0, b"")
    assert source.is_paused(0)
    assert len(await source.buffers.batch()) == BATCH_EVENTS
    assert not source.is_paused(0)


@pytest.mark.guarantee("Backpressure")
async def test_what_is_cleared_is_let_go_and_what_comes_then_is_taken() -> None:
    source = Source({"t/0"})
    gone = [source.put(0) for _ in range(4)] + [source.put(1)]
    source.buffers.clear()
    assert (source.discarded, source.buffers.empty) == (gone, True)
    assert not [event for event in gone if event.acked]
    came = source.put(1)
    assert await source.buffers.batch() == [came]


async def test_filling_never_waits_for_room() -> None:
    source = Source({"t/0"})
    held, last = [source.event(0) for _ in range(50)], source.event(1)
    polls = [poll([event]) for event in (*held, last)]
    filling = asyncio.create_task(source.buffers.fill(coming(polls)))
    await until(filling.done)
    assert [event.message for event in await source.buffers.batch()] == [last.message]
    assert source.is_paused(0)


@pytest.mark.guarantee("At-least-once delivery")
async def test_a_poll_is_acknowledged_with_its_last_event() -> None:
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
    assert not any(each.message.value for each in polls), "what is done is not held on to"
    assert acked == polls and all(each.acked == [each] for each in polls)
