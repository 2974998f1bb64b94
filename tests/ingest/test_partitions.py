"""Assignment: reading continues at the positions in Redis, not at Kafka's committed offsets."""

import logging
from collections.abc import Callable, Sequence

import pytest
from redis.asyncio import Redis

from stream_app.ingest.owned_partition import OwnedPartition
from stream_app.ingest.partitions import Assignment
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.state import FencedError, LostWritesError, PositionUpdate
from stream_app.store.store import StreamStore
from tests.support.fakes import TP, Event, FakeBroker, Message

Fresh = Callable[[str], str]


@pytest.fixture
def partitions(redis_client: Redis, fresh: Fresh) -> Assignment:
    """The assignment of a fresh topic; no partition is owned yet."""
    return Assignment(StreamStore(redis_client), fresh("topic"))


def event(partitions: Assignment, offset: int, partition: int = 0) -> Event:
    return Event(Message(partitions.topic, partition, offset, 0, b"s", b"x"))


def owned_events(
    partitions: Assignment, *where: tuple[int, int]
) -> list[tuple[OwnedPartition, Event]]:
    """Events at (partition, offset) with their owned partitions."""
    events = [event(partitions, offset, partition) for partition, offset in where]
    return [(owned, e) for e in events if (owned := partitions.of(e.message))]


@pytest.mark.guarantee("Positions in Redis")
async def test_a_group_ahead_of_redis_is_set_back(partitions: Assignment) -> None:
    tp = TP(partitions.topic, 0)
    await partitions.store.partitions.move([PositionUpdate(f"{tp.topic}/0", 0, None, 30)])
    broker = FakeBroker({tp: 50}, {tp: 60})
    await partitions.assign([tp], broker)
    assert broker.commits == [{tp: 30}]
    assert partitions.owned[f"{tp.topic}/0"].expected == 30


@pytest.mark.guarantee("Positions in Redis")
async def test_a_group_behind_redis_skips_what_redis_holds(partitions: Assignment) -> None:
    tp = TP(partitions.topic, 0)
    await partitions.store.partitions.move([PositionUpdate(f"{tp.topic}/0", 0, None, 30)])
    broker = FakeBroker({tp: 10}, {tp: 60})
    await partitions.assign([tp], broker)
    assert broker.commits == [{tp: 30}]


@pytest.mark.guarantee("Positions in Redis")
async def test_an_empty_redis_reads_all_again_and_says_so(
    partitions: Assignment, caplog: pytest.LogCaptureFixture
) -> None:
    tp = TP(partitions.topic, 0)
    broker = FakeBroker({tp: 50}, {tp: 60})
    with caplog.at_level(logging.ERROR, "xl3m"):
        await partitions.assign([tp], broker)
    assert broker.commits == [{tp: 0}]
    assert "Redis holds nothing of it" in caplog.text


@pytest.mark.guarantee("Recreated topics")
async def test_a_topic_made_again_gets_a_new_name(
    partitions: Assignment, caplog: pytest.LogCaptureFixture
) -> None:
    tp = TP(partitions.topic, 0)
    await partitions.store.partitions.move([PositionUpdate(f"{tp.topic}/0", 0, None, 30, gap=4)])
    broker = FakeBroker({tp: 30}, {tp: 7})
    with caplog.at_level(logging.ERROR, "xl3m"):
        await partitions.assign([tp], broker)
    owned = partitions.of(event(partitions, 0).message)
    assert owned is not None
    assert (owned.name, owned.expected, owned.missing) == (f"{tp.topic}/0#1", 0, 0)
    assert broker.commits == [{tp: 0}]
    assert "recreated" in caplog.text


@pytest.mark.guarantee("Recreated topics")
async def test_what_an_earlier_owner_wrote_until_the_takeover_is_not_taken_for_another_topic(
    partitions: Assignment,
) -> None:
    tp = TP(partitions.topic, 0)
    await partitions.assign([tp], FakeBroker())
    later = Assignment(partitions.store, partitions.topic)

    class Growing(FakeBroker):
        async def earliest_offsets(self, *which: object) -> dict[TP, int]:
            with pytest.raises(FencedError):  # from now on; before, the end would be too old
                await partitions.advance(owned_events(partitions, (0, 9)))
            return {}

        async def seek_to_committed(self) -> dict[TP, int]:
            await partitions.advance(owned_events(partitions, (0, 7)))
            self.ends[tp] = 8
            return {}

    await later.assign([tp], Growing(ends={tp: 5}))
    owned = later.owned[f"{tp.topic}/0"]
    assert (owned.name, owned.position) == (f"{tp.topic}/0", 8)


@pytest.mark.guarantee("Positions in Redis")
async def test_no_epoch_is_drawn_for_revoked_partitions(
    partitions: Assignment,
) -> None:
    class AgainError(Exception):
        pass

    def still() -> None:
        raise AgainError

    tp = TP(partitions.topic, 0)
    await partitions.assign([tp], FakeBroker())
    late = Assignment(partitions.store, partitions.topic)
    broker = FakeBroker({tp: 3}, {tp: 9})
    with pytest.raises(AgainError):
        await late.assign([tp], broker, still)
    assert (late.owned, broker.commits) == ({}, [])
    await partitions.advance(owned_events(partitions, (0, 4)))


@pytest.mark.guarantee("Recreated topics")
async def test_a_topic_made_again_keeps_its_new_name(partitions: Assignment) -> None:
    tp = TP(partitions.topic, 0)
    await partitions.store.partitions.move([PositionUpdate(f"{tp.topic}/0", 0, None, 30)])
    await partitions.assign([tp], FakeBroker({tp: 30}, {tp: 7}))
    await partitions.advance(owned_events(partitions, (0, 4)))
    later = Assignment(partitions.store, partitions.topic)
    broker = FakeBroker({tp: 5}, {tp: 7})
    await later.assign([tp], broker)
    assert later.owned[f"{tp.topic}/0"].name == f"{tp.topic}/0#1"
    assert (later.owned[f"{tp.topic}/0"].expected, broker.commits) == (5, [])


@pytest.mark.guarantee("Positions in Redis")
@pytest.mark.parametrize(("position", "committed"), [(None, None), (None, 0), (30, 30)])
async def test_nothing_is_committed_if_nothing_differs(
    partitions: Assignment, position: int | None, committed: int | None
) -> None:
    tp = TP(partitions.topic, 0)
    if position is not None:
        await partitions.store.partitions.move([PositionUpdate(f"{tp.topic}/0", 0, None, position)])
    broker = FakeBroker({} if committed is None else {tp: committed}, {tp: 60})
    await partitions.assign([tp], broker)
    assert broker.commits == []


@pytest.mark.guarantee("Failover")
async def test_owned_and_lost_partitions_are_returned_by_name(partitions: Assignment) -> None:
    one, two, other = TP(partitions.topic, 0), TP(partitions.topic, 1), TP("another", 0)
    names = [f"{tp.topic}/{tp.partition}" for tp in (one, two)]
    assert await partitions.assign([one, other], FakeBroker()) == ([names[0]], [])
    assert await partitions.assign([one, two], FakeBroker()) == (names, [])
    assert await partitions.assign([two], FakeBroker()) == ([names[1]], [names[0]])
    assert partitions.of(event(partitions, 0, partition=0).message) is None
    assert partitions.of(event(partitions, 0, partition=1).message) is not None
    assert partitions.of(Message("another", 0, 0, 0, None, b"")) is None


@pytest.mark.guarantee("Zombie fencing")
async def test_every_takeover_draws_a_larger_epoch(partitions: Assignment) -> None:
    epochs = []
    for _ in range(3):
        taken = Assignment(partitions.store, partitions.topic)
        await taken.assign([TP(taken.topic, 0)], FakeBroker())
        epochs.append(taken.owned[f"{taken.topic}/0"].epoch)
    assert epochs == sorted(set(epochs))


@pytest.mark.guarantee("Failover")
async def test_an_assignment_that_fails_halfway_can_be_done_again(partitions: Assignment) -> None:
    old, new, newer = (TP(partitions.topic, number) for number in range(3))
    await partitions.assign([old], FakeBroker())
    committed = {newer: 5}
    with pytest.raises(ConnectionError):
        await partitions.assign([new, newer], BrokenBroker(committed))
    won, lost = await partitions.assign([new, newer], FakeBroker(committed))
    assert won == [f"{partitions.topic}/1", f"{partitions.topic}/2"]
    assert lost == [f"{partitions.topic}/0"]


class BrokenBroker(FakeBroker):
    """A broker whose commits fail."""

    async def commit_offsets(self, offsets: object) -> bool:
        raise ConnectionError("no broker")


async def test_what_is_written_while_redis_is_looked_at_is_not_missed(
    partitions: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await partitions.assign([TP(partitions.topic, 0)], FakeBroker())
    await partitions.advance(owned_events(partitions, (0, 4)))
    look = partitions.store.partitions.positions

    async def slow(names: Sequence[str]) -> list[tuple[int | None, int]]:
        found = await look(names)
        await partitions.advance(owned_events(partitions, (0, 9)))
        return found

    monkeypatch.setattr(partitions.store.partitions, "positions", slow)
    await partitions.check_positions()


@pytest.mark.guarantee("Failover")
async def test_positions_are_kept_for_every_partition_of_a_batch(partitions: Assignment) -> None:
    await partitions.assign([TP(partitions.topic, number) for number in range(3)], FakeBroker())
    await partitions.advance(owned_events(partitions, (0, 3), (1, 8), (0, 4)))
    assert await partitions.store.partitions.position(f"{partitions.topic}/0") == (5, 0)
    assert await partitions.store.partitions.position(f"{partitions.topic}/1") == (9, 0)
    assert await partitions.store.partitions.position(f"{partitions.topic}/2") == (None, 0)


@pytest.mark.guarantee("Zombie fencing")
async def test_a_partition_kept_through_a_rebalance_gets_a_new_epoch(
    partitions: Assignment,
) -> None:
    tp = TP(partitions.topic, 0)
    await partitions.assign([tp], FakeBroker())
    [(before, _)] = owned_events(partitions, (0, 0))
    other = Assignment(partitions.store, partitions.topic)
    await other.assign([tp], FakeBroker())
    await other.advance(owned_events(other, (0, 6)))
    broker = FakeBroker({tp: 3})
    await partitions.assign([tp], broker)
    assert broker.commits == [{tp: 7}]
    assert not partitions.owns(before)


@pytest.mark.guarantee("Zombie fencing")
async def test_a_zombie_moves_no_position(partitions: Assignment) -> None:
    await partitions.assign([TP(partitions.topic, 0)], FakeBroker())
    successor = Assignment(partitions.store, partitions.topic)
    await successor.assign([TP(partitions.topic, 0)], FakeBroker())
    with pytest.raises(FencedError):
        await partitions.advance(owned_events(partitions, (0, 3)))
    await successor.advance(owned_events(successor, (0, 5)))
    assert await partitions.store.partitions.position(f"{partitions.topic}/0") == (6, 0)


@pytest.mark.guarantee("Lost writes")
async def test_a_redis_that_lost_writes_is_noticed_whatever_is_written_next(
    partitions: Assignment,
) -> None:
    await partitions.assign([TP(partitions.topic, 0)], FakeBroker())
    await partitions.advance(owned_events(partitions, (0, 3)))
    await partitions.advance(owned_events(partitions, (0, 3)))  # a try whose reply was lost
    await partitions.store.redis.hset(keys.partition(f"{partitions.topic}/0"), "next", 2)
    with pytest.raises(LostWritesError):
        await partitions.advance(owned_events(partitions, (0, 7)))


@pytest.mark.guarantee("Missing offsets")
def test_missing_offsets_are_counted_once() -> None:
    owned = OwnedPartition("t/0", 0, 1, None, expected=10)
    for offset in (10, 13, 11, 12, 14, 16):
        owned.observe(offset)
    assert (owned.pop_missing(), owned.pop_missing(), owned.expected) == (3, 0, 17)


@pytest.mark.guarantee("Missing offsets")
async def test_without_a_position_only_offsets_that_the_topic_still_has_can_be_missing(
    partitions: Assignment,
) -> None:
    tp = TP(partitions.topic, 0)
    await partitions.assign([tp], FakeBroker(begins={tp: 500}))
    [(owned, _)] = owned_events(partitions, (0, 500))
    owned.observe(503)
    assert (owned.pop_missing(), owned.expected) == (3, 504)


async def taken_over(partitions: Assignment, broker: FakeBroker) -> OwnedPartition:
    """The first partition after one more assignment."""
    tp = TP(partitions.topic, 0)
    await partitions.assign([tp], broker)
    return partitions.owned[f"{tp.topic}/0"]


@pytest.mark.guarantee("Recreated topics")
async def test_a_topic_with_another_id_is_another_however_long_it_is(
    partitions: Assignment, caplog: pytest.LogCaptureFixture
) -> None:
    tp = TP(partitions.topic, 0)
    await partitions.store.partitions.move([PositionUpdate(f"{tp.topic}/0", 0, None, 30, gap=4)])
    broker = FakeBroker(ends={tp: 60}, ids={tp.topic: "cluster/one"})
    assert (await taken_over(partitions, broker)).position == 30
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    broker.ids = {}  # not known for a while
    assert (await taken_over(partitions, broker)).position == 30
    broker.ids = {tp.topic: "cluster/two"}
    owned = await taken_over(partitions, broker)
    assert (owned.name, owned.position, owned.missing) == (f"{tp.topic}/0#1", 0, 0)
    assert tp.topic in caplog.text and "deleted and recreated" in caplog.text
    assert (await taken_over(partitions, broker)).name == f"{tp.topic}/0#1"


@pytest.mark.guarantee("Recreated topics")
async def test_what_another_cluster_has_under_the_name_is_a_copy_unless_it_is_shorter(
    partitions: Assignment, caplog: pytest.LogCaptureFixture
) -> None:
    tp = TP(partitions.topic, 0)
    await partitions.store.partitions.move([PositionUpdate(f"{tp.topic}/0", 0, None, 30)])
    broker = FakeBroker(ends={tp: 60}, ids={tp.topic: "cluster/one"})
    await taken_over(partitions, broker)
    broker.ids = {tp.topic: "another/two"}
    assert (await taken_over(partitions, broker)).position == 30
    assert "on another Kafka cluster" in caplog.text and "rebuild --all" in caplog.text
    caplog.clear()
    assert (await taken_over(partitions, broker)).position == 30
    assert not caplog.text
    broker.ids, broker.ends = {tp.topic: "third/three"}, {tp: 7}
    assert (await taken_over(partitions, broker)).name == f"{tp.topic}/0#1"
