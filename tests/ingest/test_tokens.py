"""Ingest: with any redeliveries, the log equals that of the text read once, and an event is
acknowledged only when it is in Redis.
"""

import json
import random
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.ingest import tokens as ingest_module
from stream_app.ingest.buffers import BATCH_EVENTS, PartitionBuffers
from stream_app.ingest.owned_partition import OwnedPartition
from stream_app.ingest.partitions import Assignment
from stream_app.ingest.tokens import Ingest, max_buffer_bytes
from stream_app.runtime import retry
from stream_app.runtime.retry import Health
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.state import FencedError, LostWritesError, QuestionRecord, State
from stream_app.store.store import StreamStore
from tests.support.fakes import (
    PLENTY,
    TP,
    Event,
    FailingStore,
    FakeBroker,
    HashEngine,
    Message,
    batch,
    coming,
    on_redis,
    poll,
    running,
    until,
)

Fresh = Callable[[str], str]
CASES = Path(__file__).parents[1] / "cases"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses for a Redis that is simulated to be down."""
    monkeypatch.setattr(retry, "BACKOFF_SECONDS", (0.0,))


@dataclass
class Site:
    """An Ingest with its parts, and what it did with its events."""

    ingest: Ingest
    topic: str
    acked: list[Event] = field(default_factory=list)
    letters: list[tuple[Event, str]] = field(default_factory=list)

    async def dead_letter(self, event: Any, reason: str) -> None:
        assert event not in self.acked
        self.letters.append((event, reason))

    def event(self, offset: int, value: bytes | None, key: bytes | None = b"", **at: Any) -> Event:
        """An event of the stream in its key; by default its name is the topic's."""
        key = self.topic.encode() if key == b"" else key
        message = Message(self.topic, at.get("partition", 0), offset, 1001, key, value)
        return Event(message, self.acked)

    def lines(self, *texts: str, start: int = 0, partition: int = 0) -> list[Event]:
        """One event per text, with offsets from `start` on."""
        return [
            self.event(start + i, text.encode(), partition=partition)
            for i, text in enumerate(texts)
        ]

    async def state(self, stream: str = "") -> State:
        return await self.ingest.store.load(stream or self.topic)

    @property
    def offsets(self) -> list[int]:
        """Acknowledged offsets in the order of their acks."""
        return [event.message.offset for event in self.acked]


async def site(store: StreamStore, topic: str, *numbers: int, **changes: Any) -> Site:
    """A site that owns these partitions of the topic."""
    settings, engine, health = Settings(**changes), HashEngine(), store.health or Health()
    assignment = Assignment(store, topic)
    await assignment.assign([TP(topic, number) for number in numbers], FakeBroker())
    scorer = Scorer(engine, store, PLENTY, on_room=lambda: buffers.wake())
    buffers = PartitionBuffers(
        max_buffer_bytes(settings), assignment.name, scorer.throttled_partitions
    )
    here = Site(None, topic)  # type: ignore[arg-type]
    here.ingest = Ingest(
        settings, engine, store, assignment, buffers, scorer, here.dead_letter, health
    )
    return here


@pytest.fixture
def store(redis_client: Redis) -> StreamStore:
    """A store without limits."""
    return StreamStore(redis_client)


@pytest.fixture
async def here(store: StreamStore, fresh: Fresh) -> Site:
    """A site with one partition."""
    return await site(store, fresh("topic"), 0)


@dataclass
class Reading:
    """Ingest as a service."""

    ingest: Ingest
    polls: AsyncIterator[Event]

    async def run(self) -> None:
        """Run until cancelled."""
        await self.ingest.run(self.polls)


async def assert_holds(site: Site, text: str) -> None:
    """Check that the stream equals the text read at once."""
    tail, segments = batch(site.ingest.scorer.engine, text)
    found = await site.ingest.store.segments(site.topic, 0, PLENTY)
    assert [(s.text, s.start, s.end, s.start_token) for s in found] == [
        (s.text, s.start, s.end, s.start_token) for s in segments
    ]
    kept = (await site.state()).tail
    assert [u.text for u in kept.units] == [u.text for u in tail.units]
    assert (kept.index, kept.end, kept.overlap_units) == (tail.index, tail.end, tail.overlap_units)


RECORDS = st.lists(st.text("ab é\t", max_size=20).map(lambda line: line + "\n"), min_size=1)
CUTS = st.lists(st.integers(0, 30), max_size=6)


def split(items: list[Any], cuts: list[int]) -> list[list[Any]]:
    edges = [0, *sorted(min(cut, len(items)) for cut in cuts), len(items)]
    return [items[a:b] for a, b in pairwise(edges) if a < b]


@pytest.mark.guarantee("Chunking")
@on_redis
@given(RECORDS, CUTS, CUTS)
async def test_any_split_into_events_and_batches_gives_the_offline_log(
    redis_client: Redis, fresh: Fresh, records: list[str], cuts: list[int], batches: list[int]
) -> None:
    here = await site(StreamStore(redis_client), fresh("topic"), 0)
    events = here.lines(*("".join(piece) for piece in split(records, cuts)))
    for part in split(events, batches):
        await here.ingest.apply(part)
    await assert_holds(here, "".join(records))
    assert here.acked == events


@pytest.mark.guarantee("Exactly-once effect")
@on_redis
@given(RECORDS, st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=6))
async def test_events_delivered_again_change_nothing(
    redis_client: Redis, fresh: Fresh, records: list[str], again: list[tuple[int, int]]
) -> None:
    store, topic = StreamStore(redis_client), fresh("topic")
    here = await site(store, topic, 0)
    await here.ingest.apply(here.lines(*records))
    state = await here.state()
    for start, count in again:
        taker = await site(store, topic, 0)
        await taker.ingest.apply(taker.lines(*records)[start : start + count])
        assert (await taker.state()) == state
    await assert_holds(here, "".join(records))


@pytest.mark.guarantee("Exactly-once effect")
@on_redis
@given(RECORDS, st.integers(0, 30), st.integers(0, 30))
async def test_a_stretch_delivered_again_goes_over_into_what_is_new(
    redis_client: Redis, fresh: Fresh, records: list[str], until_: int, back: int
) -> None:
    store, topic = StreamStore(redis_client), fresh("topic")
    first = await site(store, topic, 0)
    await first.ingest.apply(first.lines(*records)[:until_])
    second = await site(store, topic, 0)
    await second.ingest.apply(second.lines(*records)[max(0, min(until_, len(records)) - back) :])
    await assert_holds(second, "".join(records))
    assert (await second.state()).cursor.gaps == 0


async def test_a_stream_of_times_has_those_of_its_events(here: Site) -> None:
    await here.ingest.apply(here.lines("a" * 11 + "\n", "b" * 11 + "\n", "c"))
    segments = await here.ingest.store.segments(here.topic, 0, 9)
    assert {(s.start_ms, s.end_ms) for s in segments} == {(1001, 1001)}


async def test_an_event_without_a_time_is_no_trouble(here: Site) -> None:
    message = Message(here.topic, 0, 0, None, here.topic.encode(), b"x\n")
    await here.ingest.apply([Event(message, here.acked)])
    assert here.offsets == [0]


# -- acknowledgement -----------------------------------------------------------------------------


@pytest.mark.guarantee("At-least-once delivery")
async def test_acks_come_in_order_and_only_after_the_write(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = here.ingest.assignment.advance

    async def check(batch: list[tuple[OwnedPartition, Event]]) -> None:
        assert here.acked == []
        assert (await here.state()).cursor.next == {f"{here.topic}/0": 3}
        await advance(batch)

    monkeypatch.setattr(here.ingest.assignment, "advance", check)
    await here.ingest.apply(here.lines("a", "b", "c"))
    assert here.offsets == [0, 1, 2]
    assert await here.ingest.store.partitions.position(f"{here.topic}/0") == (3, 0)


@pytest.mark.guarantee("At-least-once delivery")
@pytest.mark.guarantee("Exactly-once effect")
@pytest.mark.guarantee("Redis outages")
@pytest.mark.parametrize("failing", ["before", "after"])
async def test_a_redis_that_fails_for_a_while_costs_nothing(
    failing: str, redis_client: Redis, fresh: Fresh
) -> None:
    store = FailingStore(redis_client, **{failing: 3})
    here = await site(store, fresh("topic"), 0)
    acked_by_then: list[int] = []
    store.on_failure = lambda: acked_by_then.append(len(here.acked))
    records = [f"record {i}\n" for i in range(9)]
    for part in split(here.lines(*records), [4]):
        await here.ingest.apply(part)
    await assert_holds(here, "".join(records))
    assert acked_by_then == [0, 0, 0]
    assert here.offsets == list(range(9))
    assert here.ingest.health.ok


@pytest.mark.guarantee("Exactly-once effect")
async def test_what_was_written_without_a_reply_is_scored_all_the_same(
    redis_client: Redis, fresh: Fresh
) -> None:
    here = await site(FailingStore(redis_client, after=1), fresh("topic"), 0)
    await here.ingest.apply(here.lines("record 1\n", "record 2\n"))
    seen = here.ingest.scorer.streams.tracked[here.topic]
    assert await here.ingest.scorer.step() is False
    assert seen.cursor == (await here.state()).cursor


@pytest.mark.guarantee("Zombie fencing")
async def test_a_zombie_writes_and_acknowledges_nothing(store: StreamStore, fresh: Fresh) -> None:
    topic = fresh("topic")
    zombie, owner = [await site(store, topic, 0) for _ in range(2)]
    await owner.ingest.apply(owner.lines("new\n"))
    state = await owner.state()
    with pytest.raises(FencedError, match="later owner"):
        await zombie.ingest.apply(zombie.lines("old\n", "old\n"))
    assert (zombie.acked, await owner.state()) == ([], state)


@pytest.mark.guarantee("Zombie fencing")
async def test_a_zombie_that_wrote_before_its_successor_is_taken_up(
    store: StreamStore, fresh: Fresh
) -> None:
    topic = fresh("topic")
    zombie, owner = [await site(store, topic, 0) for _ in range(2)]
    await owner.ingest._load([topic])
    with pytest.raises(FencedError):  # its text counts, but its partition is another's
        await zombie.ingest.apply(zombie.lines("record 0\n", "record 1\n"))
    await owner.ingest.apply(owner.lines("record 0\n", "record 1\n", "record 2\n"))
    await assert_holds(owner, "record 0\nrecord 1\nrecord 2\n")


@pytest.mark.guarantee("Lost writes")
async def test_a_redis_that_lost_writes_ends_the_worker(here: Site, redis_client: Redis) -> None:
    await here.ingest.apply(here.lines("record 0\n"))
    cursor = keys.cursor(here.topic)
    saved = await redis_client.dump(cursor)
    await here.ingest.apply(here.lines("record 1\n", start=1))
    await redis_client.restore(cursor, 0, saved or b"", replace=True)
    with pytest.raises(LostWritesError, match="Redis lost"):
        await here.ingest.apply(here.lines("record 2\n", start=2))
    assert here.offsets == [0, 1]


@pytest.mark.guarantee("Lost writes")
async def test_a_redis_that_lost_a_stream_not_at_hand_is_not_written_to(
    here: Site, redis_client: Redis
) -> None:
    await here.ingest.apply(here.lines("record 0\n"))
    await redis_client.delete(
        keys.cursor(here.topic), keys.tail(here.topic), keys.log(here.topic),
        keys.partition(f"{here.topic}/0"),
    )  # fmt: skip
    here.ingest.forget()
    with pytest.raises(LostWritesError, match="lost writes"):
        await here.ingest.apply(here.lines("record 1\n", start=1))
    assert await here.state() == State(), "a later event would hide the lost one"


@pytest.mark.guarantee("Lost writes")
async def test_what_a_restart_took_between_write_and_position_is_written_again(
    here: Site, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.ingest.apply(here.lines("record 0\n"))
    names = [make(here.topic) for make in (keys.cursor, keys.tail, keys.log)]
    saved = [await redis_client.dump(name) for name in names]
    advance, calls = here.ingest.assignment.advance, list[int]()

    async def restarted(done: list[tuple[OwnedPartition, Any]]) -> None:
        calls.append(len(done))
        if len(calls) == 1:
            here.ingest.assignment.trusted_run_id = "a process that ended"
            for name, value in zip(names, saved, strict=True):
                await redis_client.delete(name)
                if value:
                    await redis_client.restore(name, 0, value)
        await advance(done)

    monkeypatch.setattr(here.ingest.assignment, "advance", restarted)
    await here.ingest.apply(here.lines("record 1\n", start=1))
    assert calls == [1, 1]
    assert here.offsets == [0, 1]
    await assert_holds(here, "record 0\nrecord 1\n")


# -- events that are not as they should be -------------------------------------------------------


@pytest.mark.guarantee("Dead letters")
async def test_malformed_events_are_dead_lettered_and_the_stream_goes_on(here: Site) -> None:
    events = here.lines("good\n", "good\n")
    events[1:1] = [here.event(1, b"\xff"), here.event(2, b"\xe9\n"), here.event(3, b"a\xe9")]
    events[4] = here.event(4, b"good\n")
    await here.ingest.apply(events)
    reasons = [reason for _, reason in here.letters]
    assert [event for event, _ in here.letters] == events[1:4]
    assert all("not UTF-8" in reason for reason in reasons)
    assert here.acked == events
    await assert_holds(here, "good\ngood\n")


async def test_a_large_event_is_decoded_beside_the_event_loop(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, on_loop = here.ingest.decoder.decode, list[bool]()

    def watched(*args: Any, **how: Any) -> Any:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return decode(*args, **how)

    monkeypatch.setattr(here.ingest.decoder, "decode", watched)
    large = "a line of text\n" * 10_000
    await here.ingest.apply(here.lines("small\n", large, "small\n"))
    assert on_loop == [True, False, True]
    await assert_holds(here, f"small\n{large}small\n")


@pytest.mark.guarantee("Dead letters")
async def test_a_batch_of_malformed_events_moves_on(here: Site) -> None:
    await here.ingest.apply([here.event(i, b"\xff") for i in range(3)])
    assert here.offsets == [0, 1, 2]
    assert await here.ingest.store.partitions.position(f"{here.topic}/0") == (3, 0)
    assert await here.state() == State()


async def test_events_are_read_in_the_form_the_settings_say(
    store: StreamStore, fresh: Fresh
) -> None:
    here = await site(store, fresh("topic"), 0, input_format="msgpack", max_event_bytes=64)
    good = {"ids": [ord(c) for c in "ab\n"], "time": 1_700_000_000_000}
    values = [msgpack.packb(good), b"plain", msgpack.packb({"text": "x" * 99})]
    await here.ingest.apply([here.event(i, value) for i, value in enumerate(values)])
    assert len(here.letters) == 2
    (unit,) = (await here.state()).tail.units
    assert (unit.text, unit.time_ms) == ("ab\n", 1_700_000_000_000)


@pytest.mark.guarantee("Missing offsets")
async def test_missing_offsets_are_counted_on_the_stream(here: Site) -> None:
    await here.ingest.apply([here.event(i, b"x\n") for i in (0, 1, 4)])
    await here.ingest.apply([here.event(9, b"\xff"), here.event(10, b"x\n")])
    assert (await here.state()).cursor.gaps == 2 + 4
    await here.ingest.apply([here.event(i, b"x\n") for i in (4, 9, 10)])
    assert (await here.state()).cursor.gaps == 2 + 4


@pytest.mark.guarantee("Missing offsets")
async def test_offsets_missing_at_the_assignment_are_counted(
    store: StreamStore, fresh: Fresh
) -> None:
    topic = fresh("topic")
    first = await site(store, topic, 0)
    await first.ingest.apply(first.lines("x\n"))
    second = await site(store, topic, 0)
    await second.ingest.apply(second.lines("x\n", start=6))
    assert (await second.state()).cursor.gaps == 5


@pytest.mark.guarantee("Missing offsets")
async def test_offsets_missing_before_a_dead_letter_are_counted_once(
    store: StreamStore, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = fresh("topic")
    first = await site(store, topic, 0)
    await first.ingest.apply([first.event(0, b"x\n"), first.event(4, b"\xff")])
    second = await site(store, topic, 0)

    async def die(_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(second.ingest.assignment, "advance", die)
    with pytest.raises(ZeroDivisionError):
        await second.ingest.apply(second.lines("y\n", start=5))
    assert (await second.state()).cursor.gaps == 3
    third = await site(store, topic, 0)
    for number in (5, 6):  # the first of them again
        await third.ingest.apply(third.lines("z\n", start=number))
    assert (await third.state()).cursor.gaps == 3
    assert await store.partitions.gap(f"{topic}/0") == 0


# -- partitions and streams ----------------------------------------------------------------------


@pytest.mark.guarantee("At-least-once delivery")
async def test_events_of_a_partition_not_owned_are_dropped_unacknowledged(here: Site) -> None:
    mine, other = here.lines("mine\n"), here.lines("other\n", partition=1)
    await here.ingest.apply([*other, *mine])
    assert here.acked == mine
    await assert_holds(here, "mine\n")
    assert await here.ingest.store.partitions.position(f"{here.topic}/1") == (None, 0)


@pytest.mark.guarantee("At-least-once delivery")
async def test_a_partition_lost_on_the_way_is_not_acknowledged(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(event: Any, reason: str) -> None:
        await here.ingest.assignment.assign([], FakeBroker())

    monkeypatch.setattr(here.ingest, "dead_letter", lose)
    await here.ingest.apply([here.event(0, b"\xff"), here.event(1, b"x\n")])
    assert here.acked == []
    assert await here.ingest.store.partitions.position(f"{here.topic}/0") == (None, 0)


@pytest.mark.guarantee("Failover")
async def test_a_stream_fed_by_two_partitions_keeps_both_offsets(
    store: StreamStore, fresh: Fresh
) -> None:
    here = await site(store, fresh("topic"), 0, 1)
    one, two = here.lines("a\n", "b\n"), here.lines("c\n", "d\n", start=5, partition=1)
    await here.ingest.apply([one[0], two[0], one[1], two[1]])
    assert (await here.state()).cursor.next == {f"{here.topic}/0": 2, f"{here.topic}/1": 7}
    assert (await here.state()).tail.end == 8
    await here.ingest.apply([*here.lines("b\n", start=1), *here.lines("d\n", start=6, partition=1)])
    assert (await here.state()).tail.end == 8


@pytest.mark.guarantee("Recreated topics")
async def test_a_topic_made_again_goes_on_behind_what_the_stream_holds(
    store: StreamStore, fresh: Fresh
) -> None:
    topic = fresh("topic")
    first, second = await site(store, topic, 0), await site(store, topic)
    await first.ingest.apply(first.lines("a\n", "b\n", "c\n"))
    await second.ingest.assignment.assign([TP(topic, 0)], FakeBroker(ends={TP(topic, 0): 1}))
    await second.ingest.apply(second.lines("d\n"))
    assert (await second.state()).cursor.next == {f"{topic}/0": 3, f"{topic}/0#1": 1}
    await assert_holds(second, "a\nb\nc\nd\n")


async def test_streams_are_listed_under_their_partition(here: Site, fresh: Fresh) -> None:
    other = fresh("other")
    await here.ingest.apply([here.event(0, b"x"), here.event(1, b"x", other.encode())])
    await here.ingest.apply([here.event(2, b"x", None)])
    listed = await here.ingest.store.streams(f"{here.topic}/0")
    assert listed == sorted([here.topic, other, f"{here.topic}/0"])


async def full(store: StreamStore, left: int) -> int:
    """The limit of streams that admits `left` more."""
    return int(await store.redis.scard(keys.streams())) + left


@pytest.mark.guarantee("Bounded counts")
async def test_one_stream_too_many_is_dead_lettered_and_those_that_are_there_go_on(
    store: StreamStore, fresh: Fresh
) -> None:
    here = await site(store, fresh("topic"), 0, max_streams=await full(store, 2))
    names = [fresh("stream") for _ in range(4)]
    events = [here.event(i, b"x\n", names[i % 4].encode()) for i in range(12)]
    for part in split(events, [3, 7]):
        await here.ingest.apply(part)
    assert {event.message.key for event, _ in here.letters} == {n.encode() for n in names[2:]}
    assert len(here.letters) == 6 and here.acked == events
    assert all("XL3M_MAX_STREAMS" in reason for _, reason in here.letters)
    assert [(await here.state(name)).tail.end for name in names] == [6, 6, 0, 0]
    assert not await store.redis.exists(*(keys.cursor(name) for name in names[2:]))
    assert set(names[2:]).isdisjoint(here.ingest.states)


@pytest.mark.guarantee("Bounded counts")
async def test_a_stream_that_is_there_goes_on_with_whoever_gets_its_partition(
    store: StreamStore, fresh: Fresh
) -> None:
    topic = fresh("topic")
    first = await site(store, topic, 0, max_streams=await full(store, 1))
    await first.ingest.apply(first.lines("record 0\n"))
    second = await site(store, topic, 0, 1, max_streams=1)
    await second.ingest.apply(second.lines("record 0\n", "record 1\n"))
    await second.ingest.apply(second.lines("record 2\n", partition=1))
    assert second.letters == []
    await assert_holds(second, "record 0\nrecord 1\nrecord 2\n")


@pytest.mark.guarantee("Bounded counts")
async def test_offsets_missing_before_an_event_beyond_the_limit_are_counted_on_the_next(
    store: StreamStore, fresh: Fresh
) -> None:
    here = await site(store, fresh("topic"), 0, max_streams=await full(store, 1))
    await here.ingest.apply([here.event(0, b"x\n"), here.event(4, b"x\n", fresh("s").encode())])
    await here.ingest.apply([here.event(5, b"x\n")])
    assert (await here.state()).cursor.gaps == 3


@pytest.mark.guarantee("Bounded memory")
@pytest.mark.parametrize("cached", [1, 3, 1000])
async def test_more_streams_than_are_kept_at_hand(
    cached: int, here: Site, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "CACHED_STREAMS", cached)
    random_, streams = random.Random(1), [fresh("stream") for _ in range(5)]
    for step in range(8):
        names = random_.sample(streams, 3)
        offset = 3 * step
        await here.ingest.apply(
            [here.event(offset + i, b"123\n", name.encode()) for i, name in enumerate(names)]
        )
    ends = [(await here.state(stream)).tail.end for stream in streams]
    assert sum(ends) == 4 * 24


async def test_a_batch_of_very_many_new_streams_is_taken_in(here: Site, fresh: Fresh) -> None:
    stem = fresh("stream")
    events = [here.event(i, b"x", f"{stem}/{i}".encode()) for i in range(512)]
    await here.ingest.apply(events)
    assert here.acked == events


@pytest.mark.guarantee("Backpressure")
async def test_a_partition_far_behind_waits_and_the_others_do_not(
    store: StreamStore, fresh: Fresh
) -> None:
    here, slow = await site(store, fresh("topic"), 0, 1), fresh("slow")
    scoring = here.ingest.scorer
    scoring.max_lag_segments = 1
    for stream in (here.topic, slow):
        await store.questions.ask(stream, scoring.question_id("q?"), QuestionRecord("q?"))
    hot = here.lines(*["123456789\n"] * 9)
    more = [*here.lines("hot\n", start=9), here.event(0, b"slow\n", slow.encode(), partition=1)]

    async def come() -> AsyncIterator[Event]:
        for each in polls[:2]:
            yield each
        await until(lambda: here.acked == polls[:2])
        await scoring.streams.refresh()
        for each in polls[2:]:
            yield each

    polls = [poll(hot[:4]), poll(hot[4:]), poll(more[:1]), poll(more[1:])]
    async with running(Reading(here.ingest, come())):
        await until(lambda: polls[3] in here.acked)
        assert here.acked == [*polls[:2], polls[3]]
        assert here.ingest.working
        while await scoring.step():
            pass
        await until(lambda: polls[2] in here.acked)
        await until(lambda: not here.ingest.working)


@pytest.mark.guarantee("At-least-once delivery")
async def test_run_ingests_every_event(here: Site) -> None:
    events = here.lines(*(f"record {i}\n" for i in range(2000)))

    polls = [poll(events[i : i + 300]) for i in range(0, len(events), 300)]
    async with running(Reading(here.ingest, coming(polls))):
        await until(lambda: len(here.acked) == len(polls))
    assert here.acked == polls
    assert here.ingest.batches >= 2000 / BATCH_EVENTS
    await assert_holds(here, "".join(f"record {i}\n" for i in range(2000)))


# -- events of several records -------------------------------------------------------------------

TEXTS = st.text("ab é\t", min_size=1, max_size=20)
# Records of three streams: (number of the stream, text).
FANNED = st.lists(st.lists(st.tuples(st.integers(0, 2), TEXTS), max_size=5), min_size=1, max_size=8)


def fanned(events: list[list[tuple[int, str]]], names: list[str]) -> list[bytes]:
    """One event per list of records."""
    found = [[{"s": names[which], "text": text} for which, text in each] for each in events]
    return [json.dumps({"records": records}).encode() for records in found]


FAN_OUT = {"input_format": "json", "records_field": "records[]", "key_field": "s"}


@pytest.mark.guarantee("Event formats")
@on_redis
@given(FANNED, CUTS, st.lists(st.tuples(st.integers(0, 8), st.integers(1, 4)), max_size=3))
async def test_records_of_events_are_the_streams_of_the_records_one_by_one(
    redis_client: Redis,
    fresh: Fresh,
    events: list[list[tuple[int, str]]],
    batches: list[int],
    again: list[tuple[int, int]],
) -> None:
    store, names = StreamStore(redis_client), [fresh("s") for _ in range(3)]
    one_by_one = [fresh("t") for _ in range(3)]
    here = await site(store, fresh("topic"), 0, **FAN_OUT)
    sent = [here.event(i, value) for i, value in enumerate(fanned(events, names))]
    for part in split(sent, batches):
        await here.ingest.apply(part)
    there = await site(store, fresh("topic"), 0)
    singles = [record for event in events for record in event]
    await there.ingest.apply(
        [
            there.event(i, text.encode(), one_by_one[which].encode())
            for i, (which, text) in enumerate(singles)
        ]
    )
    assert here.acked == sent and not here.letters
    states = [await here.state(name) for name in names]
    for name, other, state in zip(names, one_by_one, states, strict=True):
        assert state.tail == (await there.state(other)).tail
        assert await store.segments(name, 0, 99) == await store.segments(other, 0, 99)
    for start, count in again:  # redelivered to any worker
        taker = await site(store, here.topic, 0, **FAN_OUT)
        values = fanned(events, names)
        redelivered = [taker.event(i, value) for i, value in enumerate(values)]
        await taker.ingest.apply(redelivered[start : start + count])
    assert [await here.state(name) for name in names] == states


@pytest.mark.guarantee("Event formats")
async def test_an_event_that_died_between_its_streams_is_finished_by_its_next_owner(
    store: StreamStore, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, names = fresh("topic"), [fresh("s") for _ in range(3)]
    values = fanned([[(0, "a"), (1, "b"), (0, "c"), (2, "d")]], names)
    first = await site(store, topic, 0, **FAN_OUT)
    monkeypatch.setattr(ingest_module, "STREAMS_PER_COMMIT", 1)
    commit, done = store.commit, list[str]()

    async def die(commits: Any, trusted: str = "") -> Any:
        if len(done) == 2:
            raise ZeroDivisionError
        done.extend(each.stream for each in commits)
        return await commit(commits, trusted)

    monkeypatch.setattr(store, "commit", die)
    with pytest.raises(ZeroDivisionError):
        await first.ingest.apply([first.event(3, values[0])])
    assert first.acked == [] and done == names[:2]
    monkeypatch.setattr(store, "commit", commit)
    second = await site(store, topic, 0, **FAN_OUT)
    await second.ingest.apply([second.event(3, values[0])])
    texts = [(await second.state(name)).tail.units for name in names]
    assert [[unit.text for unit in units] for units in texts] == [["a\n", "c\n"], ["b\n"], ["d\n"]]
    assert second.offsets == [3]


@pytest.mark.guarantee("Event formats")
async def test_a_bad_record_among_good_ones_is_one_dead_letter_and_costs_no_other(
    store: StreamStore, fresh: Fresh
) -> None:
    here = await site(store, fresh("topic"), 0, input_format="json")
    value = b'[{"text": "a"}, {"txt": 1}, {"text": "b"}, 5, {"text": null}]'
    await here.ingest.apply([here.event(0, value), here.event(1, b'{"text": "c"}')])
    ((event, reason),) = here.letters
    assert event.message.offset == 0
    assert reason.startswith("record 2 of 5: field 'text' is missing")
    assert reason.endswith("(and 1 more)")
    assert here.offsets == [0, 1]
    await assert_holds(here, "a\nb\nc\n")


@pytest.mark.guarantee("Event formats")
async def test_offsets_missing_before_an_event_of_several_streams_are_counted_once(
    store: StreamStore, fresh: Fresh
) -> None:
    names = [fresh("s") for _ in range(3)]
    here = await site(store, fresh("topic"), 0, **FAN_OUT)
    values = fanned([[(0, "a")], [(1, "b"), (2, "c"), (1, "d")]], names)
    await here.ingest.apply([here.event(0, values[0]), here.event(5, values[1])])
    await here.ingest.apply([here.event(5, values[1])])
    assert [(await here.state(name)).cursor.gaps for name in names] == [0, 4, 0]


@pytest.mark.guarantee("Bounded counts")
async def test_one_stream_too_many_costs_an_event_no_other_stream(
    store: StreamStore, fresh: Fresh
) -> None:
    names = [fresh("s") for _ in range(4)]
    here = await site(store, fresh("topic"), 0, max_streams=await full(store, 2), **FAN_OUT)
    value = json.dumps({"records": [{"s": name, "text": name} for name in names * 2]}).encode()
    await here.ingest.apply([here.event(0, value)])
    ((_, reason),) = here.letters
    assert names[2] in reason and "XL3M_MAX_STREAMS" in reason
    sizes = [(await here.state(name)).tail.end for name in names]
    assert sizes == [2 * len(f"{name}\n") for name in names[:2]] + [0, 0]
    assert here.offsets == [0]


async def test_an_event_of_very_many_streams_is_taken_in(
    store: StreamStore, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "STREAMS_PER_COMMIT", 100)
    here, stem = await site(store, fresh("topic"), 0, **FAN_OUT), fresh("s")
    records = [{"s": f"{stem}/{i % 1050}", "text": "x"} for i in range(2100)]
    await here.ingest.apply([here.event(0, json.dumps({"records": records}).encode())])
    ends = [(await here.state(f"{stem}/{i}")).tail.end for i in (0, 99, 100, 1049)]
    assert ends == [4, 4, 4, 4]
    assert here.offsets == [0] and not here.letters


@pytest.mark.guarantee("Event formats")
async def test_parts_of_a_line_are_one_record_however_they_come(
    store: StreamStore, fresh: Fresh
) -> None:
    here = await site(store, fresh("topic"), 0, input_format="docker")
    lines = (CASES / "docker_partial.json").read_bytes().splitlines()
    for part in (lines[:3], lines[3:]):  # the state between them lies in Redis
        here.ingest.states.clear()
        start = len(here.acked)
        await here.ingest.apply([here.event(start + i, line) for i, line in enumerate(part)])
    await assert_holds(here, "".join(json.loads(line)["log"] for line in lines))


async def test_what_decoding_tells_of_an_event_is_counted(store: StreamStore, fresh: Fresh) -> None:
    here = await site(store, fresh("topic"), 0, input_format="json", key_field="host")
    told, notes = list[str](), here.ingest.decoder.notes
    notes.on_skipped = lambda: told.append("skipped")
    notes.on_missing_key = lambda: told.append("key")
    notes.on_unparsed_time = lambda: told.append("time")
    values = [None, b"", b"null", b'{"text": ""}', b'{"text": "x", "time": "?", "host": "h"}']
    await here.ingest.apply([here.event(i, value) for i, value in enumerate(values)])
    await here.ingest.apply([here.event(5, b'{"text": "x"}')])
    assert told == ["skipped"] * 4 + ["time", "key"]
    assert not here.letters and len(here.acked) == 6
