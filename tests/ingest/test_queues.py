"""Queues: whatever comes in whatever order, each partition's events leave in theirs, none is lost,
and what is held in one queue holds up no other.
"""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.ingest import queues as queues_module
from stream_app.ingest.queues import BATCH_EVENTS, PartitionBuffers, size
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
        self.held = held or set()
        self.paused = set[tuple[str, int]]()
        self.abandoned = list[Event]()
        self.offsets = Counter[int]()
        self.queues = PartitionBuffers(
            MAX_BYTES, lambda message: f"t/{message.partition}", lambda: self.held
        )
        self.queues.pause = self.paused.add
        self.queues.resume = self.paused.discard
        self.queues.discard = self.abandoned.append

    def event(self, partition: int, value: bytes = b"x" * 10) -> Event:
        """The partition's next one."""
        self.offsets[partition] += 1
        return Event(Message("t", partition, self.offsets[partition], 0, None, value))

    def poll(self, partition: int, size: int) -> list[Event]:
        """So many at once."""
        self.queues.put(events := [self.event(partition) for _ in range(size)])
        return events

    def put(self, partition: int, value: bytes = b"x" * 10) -> Event:
        """It comes in."""
        self.queues.put([event := self.event(partition, value)])
        return event

    def is_paused(self, partition: int) -> bool:
        return ("t", partition) in self.paused


@pytest.mark.guarantee("Backpressure")
@given(COMINGS)
async def test_events_leave_in_the_order_of_their_partition_and_none_is_lost(
    comings: list[tuple[int, int] | None],
) -> None:
    source, put, taken = Source(), list[Event](), list[Event]()
    for step in comings:
        if step is not None:
            put += source.poll(*step)
        elif not source.queues.empty:
            taken += await source.queues.batch()
    while not source.queues.empty:
        taken += await source.queues.batch()
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
        elif step is None and source.queues.queues.keys() - held:
            batch = await source.queues.batch()
            assert sum(map(size, batch)) < MAX_BYTES + 10
            assert not {f"t/{e.message.partition}" for e in batch} & held
        most = MAX_BYTES + 10 * MOST
        assert all(queue.bytes < most for queue in source.queues.queues.values())
        full = {
            queue.partition for queue in source.queues.queues.values() if queue.bytes >= MAX_BYTES
        }
        assert source.paused == full


@pytest.mark.guarantee("Backpressure")
async def test_what_is_held_in_one_queue_holds_up_no_other() -> None:
    source = Source({"t/0"})
    hot = [source.put(0) for _ in range(9)]
    waiting = asyncio.create_task(source.queues.batch())
    await asyncio.sleep(0)
    assert not waiting.done()
    slow = source.put(1)
    assert await waiting == [slow]
    source.held.clear()
    waiting = asyncio.create_task(source.queues.batch())
    source.queues.wake()
    assert await waiting == hot[:3]


@pytest.mark.guarantee("Backpressure")
async def test_queues_have_their_turn_however_large_the_events_of_others() -> None:
    source = Source()
    large = [source.put(0, b"x" * 99) for _ in range(2)]
    small = [source.put(1), source.put(2)]
    assert await source.queues.batch() == large[:1]
    assert await source.queues.batch() == [*small, large[1]]


@pytest.mark.guarantee("Bounded memory")
async def test_a_queue_has_a_bound_of_events_too() -> None:
    source = Source()
    for _ in range(queues_module.QUEUE_EVENTS):
        assert not source.is_paused(0)
        source.put(0, b"")
    assert source.is_paused(0)
    assert len(await source.queues.batch()) == BATCH_EVENTS
    assert not source.is_paused(0)


@pytest.mark.guarantee("Backpressure")
async def test_what_is_cleared_is_let_go_and_what_comes_then_is_taken() -> None:
    source = Source({"t/0"})
    gone = [source.put(0) for _ in range(4)] + [source.put(1)]
    source.queues.clear()
    assert (source.abandoned, source.queues.empty) == (gone, True)
    assert not [event for event in gone if event.acked]
    came = source.put(1)
    assert await source.queues.batch() == [came]


async def test_filling_never_waits_for_room() -> None:
    source = Source({"t/0"})
    held, last = [source.event(0) for _ in range(50)], source.event(1)
    polls = [poll([event]) for event in (*held, last)]
    filling = asyncio.create_task(source.queues.fill(coming(polls)))
    await until(filling.done)
    assert [event.message for event in await source.queues.batch()] == [last.message]
    assert source.is_paused(0)


@pytest.mark.guarantee("At-least-once delivery")
async def test_a_poll_is_acknowledged_with_its_last_event() -> None:
    source = Source()
    polls = [poll([source.event(0, b"") for _ in range(count)]) for count in (3, 1, 400, 200)]
    await source.queues.fill(coming(polls))
    acked, offsets = list[Event](), list[int]()
    while not source.queues.empty:
        for event in await source.queues.batch():
            offsets.append(event.message.offset)
            if event.ack():
                acked.append(event.poll)
                assert event.message.offset == event.poll.message.offset
    assert offsets == [*range(1, 605)]
    assert not any(each.message.value for each in polls), "what is done is not held on to"
    assert acked == polls and all(each.acked == [each] for each in polls)
