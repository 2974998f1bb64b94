"""The store: every step is applied as a whole or refused, also if repeated or concurrent."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from stream_app.store import keys as layout
from stream_app.store.codec import pack_segment, pack_tail, unpack_segment, unpack_tail
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.range_update import RangeResult, RangeUpdate
from stream_app.store.rows import Rows
from stream_app.store.state import (
    Commit,
    Committed,
    Conflict,
    FencedError,
    LimitError,
    PositionUpdate,
    QuestionRecord,
    Retention,
    ScoredRange,
    State,
)
from stream_app.store.store import StreamStore
from tests.support.fakes import PLENTY, on_redis
from tests.support.rows import rows_of
from xl3m_core import Segment, Tail, TopK, Unit
from xl3m_core.smoothing import REACH

TOP_CHANGED, EXTENDED, CONFLICT = RangeResult
Fresh = Callable[[str], str]
HOUR = 3600.0


@pytest.fixture
def store(redis_client: Redis) -> StreamStore:
    """A store without retention limits."""
    return StreamStore(redis_client)


def segment(index: int, text: str = "x") -> Segment:
    return Segment(index, text, index, index + len(text), index, index + 1, None, 10 * index)


def step(stream: str, base: State, count: int = 1, **changes: Any) -> Commit:
    """A commit of the next `count` segments of a stream, from the next offset of one partition."""
    head = base.cursor.head
    offset = base.cursor.next.get("t/0", 0)
    commit = Commit(
        stream, base, [segment(head + i) for i in range(count)],
        Tail(index=head + count, partial=f"tail {head}"), "t/0", 1, offset + 1,
    )  # fmt: skip
    return replace(commit, **changes)


async def written(store: StreamStore, commit: Commit) -> State:
    (result,) = await store.commit([commit])
    assert isinstance(result, Committed)
    return result.state


async def grown(store: StreamStore, stream: str, segments: int) -> State:
    """The state of a stream with this number of segments."""
    return await written(store, step(stream, State(), segments))


# -- the log -------------------------------------------------------------------------------------


@pytest.mark.guarantee("Exactly-once effect")
async def test_segments_tail_and_offset_move_together(store: StreamStore, fresh: Fresh) -> None:
    stream = fresh("stream")
    first = await grown(store, stream, 2)
    second = await written(store, step(stream, first, 3, next_offset=9, gaps=2))
    assert second == await store.load(stream)
    assert second.cursor.next == {"t/0": 9}
    assert (second.cursor.head, second.cursor.gaps) == (5, 2)
    assert second.tail == Tail(index=5, partial="tail 2")
    assert await store.segments(stream, 0, 99) == [
        segment(0), segment(1), segment(2), segment(3), segment(4)
    ]  # fmt: skip


async def test_an_unknown_stream_is_empty(store: StreamStore, fresh: Fresh) -> None:
    assert await store.load(fresh("stream")) == State()
    assert await store.load_all([]) == []
    assert await store.segments(fresh("stream"), 0, 0) == []
    assert await store.segments(fresh("stream"), 0, 5) == []


async def test_many_streams_are_loaded_and_written_at_once(
    store: StreamStore, fresh: Fresh
) -> None:
    streams = [fresh("stream") for _ in range(300)]
    states = await store.load_all(streams)
    written = await store.commit([step(s, b) for s, b in zip(streams, states, strict=True)])
    assert [*map(Committed, await store.load_all(streams))] == written


@pytest.mark.guarantee("Exactly-once effect")
async def test_a_repeated_commit_changes_nothing(store: StreamStore, fresh: Fresh) -> None:
    stream = fresh("stream")
    commit = step(stream, await grown(store, stream, 1), 2, gaps=3)
    state = await written(store, commit)
    assert await store.commit([commit]) == [Conflict()]
    assert await store.load(stream) == state
    assert len(await store.segments(stream, 0, 99)) == 3


@pytest.mark.guarantee("Zombie fencing")
async def test_an_older_epoch_is_fenced_and_writes_nothing(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    state = await written(store, step(stream, State(), epoch=7))
    with pytest.raises(FencedError, match="later owner than epoch 6"):
        await store.commit([step(stream, state, epoch=6)])
    assert await store.load(stream) == state
    assert (await written(store, step(stream, state, epoch=7))).cursor.head == 2


@pytest.mark.guarantee("Zombie fencing")
async def test_epochs_of_partitions_do_not_fence_each_other(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    state = await written(store, step(stream, State(), epoch=7))
    state = await written(store, step(stream, state, partition="t/1", epoch=2, next_offset=4))
    assert state.cursor.next == {"t/0": 1, "t/1": 4}
    assert state == await store.load(stream)


@pytest.mark.guarantee("Exactly-once effect")
@on_redis
@given(st.lists(st.integers(0, 3), min_size=2, max_size=6))
async def test_exactly_one_of_several_writers_from_one_state_succeeds(
    redis_client: Redis, fresh: Fresh, counts: list[int]
) -> None:
    store, stream = StreamStore(redis_client), fresh("stream")
    base = await grown(store, stream, 1)
    steps = [step(stream, base, count, next_offset=i + 2) for i, count in enumerate(counts)]
    replies = [(await reply)[0] for reply in map(store.commit, [[one] for one in steps])]
    raced = await asyncio.gather(*(store.commit([one]) for one in steps))
    winners = [r for r in [*replies, *(r[0] for r in raced)] if r != Conflict()]
    assert winners == [Committed(await store.load(stream))]


@pytest.mark.guarantee("Exactly-once effect")
async def test_exactly_one_of_several_concurrent_writers_succeeds(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    steps = [step(stream, State(), count) for count in range(20)]
    replies = await asyncio.gather(*(store.commit([one]) for one in steps))
    winners = [reply[0] for reply in replies if reply[0] != Conflict()]
    assert winners == [Committed(await store.load(stream))]


@pytest.mark.guarantee("Bounded memory")
@pytest.mark.guarantee("Retention")
@on_redis
@given(
    st.lists(st.lists(st.integers(0, 60), max_size=5), max_size=6),
    st.integers(1, 8),
    st.integers(1, 400),
)
async def test_the_log_never_exceeds_its_retention(
    redis_client: Redis, fresh: Fresh, steps: list[list[int]], most: int, most_bytes: int
) -> None:
    store, stream = StreamStore(redis_client, Retention(most, most_bytes)), fresh("stream")
    state, log = State(), list[Segment]()
    for lengths in steps:
        new = [segment(len(log) + i, "x" * length) for i, length in enumerate(lengths)]
        state = await written(store, step(stream, state, segments=new))
        log += new
        kept = retained(log, most, most_bytes)
        assert await store.segments(stream, 0, PLENTY) == kept
        assert state.cursor.first == len(log) - len(kept)
    assert await store.load(stream) == state


def retained(log: list[Segment], most: int, most_bytes: int) -> list[Segment]:
    """The longest suffix of the log within both bounds."""
    kept = len(log) and min(len(log), most)
    while sum(len(pack_segment(s)) for s in log[len(log) - kept :]) > most_bytes:
        kept -= 1
    return log[len(log) - kept :]


@pytest.mark.guarantee("Retention")
async def test_texts_in_a_top_k_survive_trimming(redis_client: Redis, fresh: Fresh) -> None:
    store, stream = StreamStore(redis_client, Retention(2)), fresh("stream")
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    state = await grown(store, stream, 2)
    await extended(store, stream, ScoredRange(0, 0), 0, [-1.0, -2.0])
    await written(store, step(stream, state, 5))
    view = await store.snapshot(stream, "q")
    assert view is not None
    assert view.state.cursor.first == 5
    assert view.top == [(segment(0), -1.0), (segment(1), -2.0)]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNT = st.integers(0, 2**53)
TIME = st.none() | st.integers(-(2**53), 2**53)
SEGMENT = st.builds(Segment, COUNT, TEXT, COUNT, COUNT, COUNT, COUNT, TIME, TIME)
UNIT = st.builds(Unit, TEXT, COUNT, TIME)
TAIL = st.builds(
    Tail, COUNT, COUNT, COUNT, st.lists(UNIT, max_size=4).map(tuple), COUNT, TEXT, TIME
)


@given(SEGMENT)
def test_a_packed_segment_is_unpacked_unchanged(segment: Segment) -> None:
    assert unpack_segment(segment.index, pack_segment(segment)) == segment


@given(TAIL)
def test_a_packed_tail_is_unpacked_unchanged(tail: Tail) -> None:
    assert unpack_tail(pack_tail(tail)) == tail
    assert unpack_tail(None) == Tail()


# -- partitions ----------------------------------------------------------------------------------


async def test_epochs_increase_and_positions_are_kept(store: StreamStore, fresh: Fresh) -> None:
    partition = f"{fresh('topic')}/0"
    assert await store.partitions.position(partition) == (None, 0)
    assert [await store.partitions.draw_epoch(partition) for _ in range(3)] == [1, 2, 3]
    await store.partitions.reset(partition, 3, incarnation=2)
    with pytest.raises(FencedError):
        await store.partitions.reset(partition, 2, incarnation=7)
    await store.partitions.move([PositionUpdate(partition, 3, 0, 7)])
    assert await store.partitions.position(partition) == (7, 2)


async def test_streams_are_listed_by_the_partition_that_feeds_them(
    store: StreamStore, fresh: Fresh
) -> None:
    topic, streams = fresh("topic"), sorted(fresh("strëam") for _ in range(3))
    pairs = [(streams[0], f"{topic}/0"), (streams[1], f"{topic}/0#2"), (streams[2], f"{topic}/1")]
    await store.register_streams(pairs)
    await store.register_streams([])
    assert await store.streams(f"{topic}/0") == streams[:2]
    assert await store.streams(f"{topic}/1") == streams[2:]
    assert set(streams) <= set(await store.streams())


@pytest.mark.guarantee("Bounded counts")
async def test_a_stream_beyond_the_limit_is_refused_and_listed_ones_are_not(
    store: StreamStore, fresh: Fresh
) -> None:
    topic, streams = fresh("topic"), [fresh("strëam") for _ in range(4)]
    most = await store.redis.scard(keys.streams()) + 2
    fed = [(stream, f"{topic}/0") for stream in streams]
    assert await store.register_streams(fed, most) == set(streams[2:])
    assert await store.register_streams(fed, most) == set(streams[2:])
    assert await store.register_streams([(streams[0], f"{topic}/1")], most) == set()
    assert await store.register_streams([(streams[0], "")], 1) == set()
    assert await store.streams(f"{topic}/0") == sorted(streams[:2])
    assert await store.streams(f"{topic}/1") == streams[:1]
    assert await store.register_streams(fed, most + 1) == set(streams[3:])


@pytest.mark.guarantee("Bounded counts")
async def test_concurrent_registrations_never_exceed_the_limit(
    store: StreamStore, fresh: Fresh
) -> None:
    topic, streams = fresh("topic"), [fresh("stream") for _ in range(40)]
    most = await store.redis.scard(keys.streams()) + 7
    parts = [streams[start : start + 10] for start in range(0, 30, 5)]
    refused = await asyncio.gather(
        *(
            store.register_streams([(stream, f"{topic}/0") for stream in part], most)
            for part in parts
        )
    )
    listed = await store.streams(f"{topic}/0")
    assert len(listed) == 7
    assert not set(listed) & frozenset().union(*refused)


# -- questions and their ranges ------------------------------------------------------------------


async def extended(
    store: StreamStore,
    stream: str,
    seen: ScoredRange,
    start: int,
    scores: Sequence[float | None],
    k: int = 4,
    qid: str = "q",
) -> RangeResult:
    """Write rows of the segments from `start` on; None: it was deleted before it was read. Segments
    that the log does not have are appended to it first."""
    end = start + len(scores)
    head = (await store.load(stream)).cursor.head
    for index in range(max(head, start), end):
        fields = {"s": pack_segment(segment(index))}
        with suppress(ResponseError):  # another call appended it meanwhile
            await store.redis.xadd(keys.log(stream), fields, id=f"{index}-1")
        await store.redis.hset(keys.cursor(stream), "head", index + 1)
    update = RangeUpdate(
        stream, qid, seen, min(seen.lo, start), max(seen.hi, end), [(start, rows_of(scores))]
    )
    return (await store.extend_range([update], k))[0].result


async def block(store: StreamStore, stream: str, number: int) -> list[float]:
    """The scores in a block; NaN without one."""
    rows = Rows(0, await store.redis.get(keys.rows(stream, "q", number)) or b"")
    scores = map(rows.score, range(rows.stop))
    return [math.nan if score is None else score for score in scores]


@pytest.mark.guarantee("Bounded memory")
async def test_scores_are_deleted_with_their_segments(store: StreamStore, fresh: Fresh) -> None:
    """Those of the few segments before the log's first one stay: its score may depend on them."""
    stream, size = fresh("stream"), layout.ROWS_PER_BLOCK
    end, held = 0, []
    for number, first in enumerate((0, size, size + 2 * REACH, 2 * size + 5)):
        start, seen = number * size, ScoredRange(0, end)
        await store.redis.hset(keys.scored_range(stream, "q"), mapping={"lo": 0, "hi": end})
        await store.redis.hset(keys.cursor(stream), "first", first)
        await extended(store, stream, seen, start, [-1.0, -2.0])
        end = start + 2
        held.append([n for n in range(5) if await block(store, stream, n)])
    assert held == [[0], [0, 1], [1, 2], [2, 3]]


async def test_a_question_starts_with_nothing_scored_at_the_head(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    assert await store.scored_range(stream, "q") is None
    await grown(store, stream, 3)
    await store.questions.ask(stream, "q", QuestionRecord("q?", set_at=5.0))
    assert await store.scored_range(stream, "q") == ScoredRange(3, 3)
    assert await store.questions.load(stream) == {"q": QuestionRecord("q?", 0.0, 5.0)}
    assert (await store.load(stream)).cursor.questions == 1


@pytest.mark.guarantee("Standing questions")
async def test_a_question_asked_again_keeps_its_range(store: StreamStore, fresh: Fresh) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    await grown(store, stream, 2)
    assert await extended(store, stream, ScoredRange(0, 0), 0, [-1.0, -2.0]) is TOP_CHANGED
    await store.questions.ask(stream, "q", QuestionRecord("q?", set_at=9.0))
    assert await store.scored_range(stream, "q") == ScoredRange(0, 2)


@pytest.mark.guarantee("Exactly-once effect")
async def test_a_range_that_moved_or_was_deleted_is_not_extended(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    assert await extended(store, fresh("stream"), ScoredRange(0, 0), 0, [-1.0]) is CONFLICT
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    assert await extended(store, stream, ScoredRange(0, 0), 0, [-2.0, None]) is TOP_CHANGED
    for seen in (ScoredRange(0, 0), ScoredRange(1, 2), ScoredRange(0, 3)):
        assert await extended(store, stream, seen, 2, [None]) is CONFLICT
    assert await store.scored_range(stream, "q") == ScoredRange(0, 2, 1)
    assert str(await block(store, stream, 0)) == "[-2.0, nan]"


@pytest.mark.guarantee("Exactly-once effect")
async def test_exactly_one_of_several_concurrent_extensions_is_written(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    tries = [
        extended(store, stream, ScoredRange(0, 0), 0, [-1.0 * i, None, -2.0]) for i in range(9)
    ]
    replies = await asyncio.gather(*tries)
    assert sorted(reply is CONFLICT for reply in replies) == [False] + [True] * 8
    assert await store.scored_range(stream, "q") == ScoredRange(0, 3, 1)


SCORES = st.lists(
    st.integers(-(10**8), 10**8).map(lambda units: units / 10_000), min_size=1, max_size=30
)


@pytest.mark.guarantee("Stream equals batch")
@on_redis
@given(SCORES, st.lists(st.integers(1, 29), max_size=4), st.integers(0, 29))
async def test_blocks_hold_the_exact_scores(
    redis_client: Redis, fresh: Fresh, scores: list[float], cuts: list[int], begin: int
) -> None:
    store, stream = StreamStore(redis_client), fresh("stream")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "ROWS_PER_BLOCK", 4)
        await extend_in_pieces(store, stream, scores, cuts, min(begin, len(scores)))
        blocks = [await block(store, stream, number) for number in range(8)]
    assert all(len(one) <= 4 for one in blocks)
    assert [score for one in blocks for score in one] == scores


async def extend_in_pieces(
    store: StreamStore, stream: str, scores: list[float], cuts: list[int], begin: int, k: int = 3
) -> None:
    """Score from `begin` to the end, then backwards to the start, as for a late question."""
    await grown(store, stream, begin)
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    seen = ScoredRange(begin, begin)
    edges = sorted({0, begin, len(scores), *(cut for cut in cuts if cut < len(scores))})
    pieces = list(pairwise(edges))
    later = [piece for piece in pieces if piece[0] >= begin]
    for lo, hi in [*later, *reversed(pieces[: len(pieces) - len(later)])]:
        assert await extended(store, stream, seen, lo, scores[lo:hi], k) is not CONFLICT
        seen = ScoredRange(min(seen.lo, lo), max(seen.hi, hi))


@pytest.mark.guarantee("Scoring order")
@pytest.mark.guarantee("Bounded memory")
@on_redis
@given(
    st.lists(st.sampled_from([-0.5, -0.25, -0.1, -3.0]), min_size=1, max_size=30),
    st.lists(st.integers(1, 29), max_size=8),
    st.integers(0, 29),
    st.integers(1, 6),
)
async def test_the_top_k_equals_that_of_the_core_in_any_order_and_with_ties(
    redis_client: Redis, fresh: Fresh, scores: list[float], cuts: list[int], begin: int, k: int
) -> None:
    store, stream = StreamStore(redis_client), fresh("stream")
    await extend_in_pieces(store, stream, scores, cuts, min(begin, len(scores)), k)
    top = TopK(k)
    for index, score in enumerate(scores):
        top.add(index, score)
    view = await store.snapshot(stream, "q")
    assert view is not None
    assert [(s.index, score) for s, score in view.top] == top.best()
    assert await redis_client.hlen(keys.text(stream, "q")) == len(top.best())


async def test_only_a_better_segment_changes_the_top_k(store: StreamStore, fresh: Fresh) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    assert await extended(store, stream, ScoredRange(0, 0), 0, [-1.0, -2.0], k=2) is TOP_CHANGED
    assert await extended(store, stream, ScoredRange(0, 2), 2, [-2.0, -3.0], k=2) is EXTENDED
    assert await extended(store, stream, ScoredRange(0, 4), 4, [-1.5], k=2) is TOP_CHANGED


async def test_a_smaller_k_trims_what_a_larger_one_kept(store: StreamStore, fresh: Fresh) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    await extended(store, stream, ScoredRange(0, 0), 0, [-1.0, -2.0, -3.0], k=3)
    await extended(store, stream, ScoredRange(0, 3), 3, [-9.0], k=1)
    view = await store.snapshot(stream, "q")
    assert view is not None and [s.index for s, _ in view.top] == [0]


async def ttls(store: StreamStore, stream: str, qid: str = "q") -> list[int]:
    """The time to live of every key of the question; -1: it does not expire."""
    names = [n async for n in store.redis.scan_iter(match="*", count=1000)]
    prefix = keys.scored_range(stream, qid).split("range:")[0].encode()
    own = [n for n in names if n.startswith(prefix) and f":{qid}:".encode() in n + b":"]
    return [await store.redis.ttl(name) for name in own]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four rows."""
    monkeypatch.setattr(layout, "ROWS_PER_BLOCK", 4)


@pytest.mark.guarantee("Bounded memory")
@pytest.mark.usefixtures("small_blocks")
async def test_all_keys_of_an_ad_hoc_question_expire(store: StreamStore, fresh: Fresh) -> None:
    stream = fresh("stream")
    await grown(store, stream, 6)
    await store.questions.ask(stream, "q", QuestionRecord("q?", time.time() + HOUR))
    await extended(store, stream, ScoredRange(6, 6), 0, [-1.0] * 6)
    await extended(store, stream, ScoredRange(0, 6), 6, [-1.0] * 9)
    lives = await ttls(store, stream)
    assert len(lives) == 7
    assert all(0 < life <= HOUR for life in lives)


@pytest.mark.guarantee("Standing questions")
@pytest.mark.usefixtures("small_blocks")
async def test_an_ad_hoc_question_that_becomes_standing_does_not_expire(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await grown(store, stream, 6)
    await store.questions.ask(stream, "q", QuestionRecord("q?", time.time() + HOUR))
    await extended(store, stream, ScoredRange(6, 6), 0, [-1.0] * 6)
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    await extended(store, stream, ScoredRange(0, 6), 6, [-1.0] * 9)
    assert await ttls(store, stream) == [-1] * 7


async def test_a_standing_question_asked_ad_hoc_stays_standing(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    await extended(store, stream, ScoredRange(0, 0), 0, [-1.0])
    await store.questions.ask(stream, "q", QuestionRecord("q?", time.time() + HOUR))
    assert await store.questions.load(stream) == {"q": QuestionRecord("q?")}
    assert await ttls(store, stream) == [-1] * 4


@pytest.mark.guarantee("Standing questions")
async def test_a_question_set_and_asked_concurrently_is_standing(
    store: StreamStore, fresh: Fresh
) -> None:
    for _ in range(10):
        stream = fresh("stream")
        once = [QuestionRecord("q?", time.time() + HOUR) for _ in range(4)]
        asks = [*once[:2], QuestionRecord("q?"), *once[2:]]
        await asyncio.gather(*(store.questions.ask(stream, "q", asked) for asked in asks))
        assert await store.questions.load(stream) == {"q": QuestionRecord("q?")}
        assert await ttls(store, stream) == [-1]


async def test_an_expired_question_is_deleted(store: StreamStore, fresh: Fresh) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "over", QuestionRecord("over?", time.time() - 1))
    await store.questions.ask(stream, "q", QuestionRecord("q?", time.time() + HOUR))
    assert list(await store.questions.load(stream)) == ["q"]
    assert await store.redis.hlen(keys.questions(stream)) == 1
    assert await store.snapshot(stream, "over") is None


@pytest.mark.guarantee("Bounded memory")
@pytest.mark.guarantee("Standing questions")
@pytest.mark.usefixtures("small_blocks")
async def test_a_replaced_question_leaves_no_keys(store: StreamStore, fresh: Fresh) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "old", QuestionRecord("old?"))
    await store.questions.ask(stream, "once", QuestionRecord("once?", time.time() + HOUR))
    await grown(store, stream, 9)
    for qid in ("old", "once"):
        await extended(store, stream, ScoredRange(0, 0), 0, [-1.0] * 9, qid=qid)
    await store.questions.ask(stream, "q", QuestionRecord("q?"), keep=False)
    assert set(await store.questions.load(stream)) == {"once", "q"}
    assert await ttls(store, stream, "old") == []
    assert len(await ttls(store, stream, "once")) == 6


@pytest.mark.guarantee("Standing questions")
async def test_an_added_question_leaves_the_others_unchanged(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "one", QuestionRecord("1?"))
    await store.questions.ask(stream, "two", QuestionRecord("2?"), keep=True)
    assert set(await store.questions.load(stream)) == {"one", "two"}


@pytest.mark.guarantee("Bounded counts")
async def test_a_standing_question_beyond_the_limit_is_refused_and_changes_nothing(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "once", QuestionRecord("once?", time.time() + HOUR), most=1)
    for number in range(3):
        await store.questions.ask(stream, f"{number}", QuestionRecord(f"{number}?"), most=3)
    before = await store.questions.load(stream), (await store.load(stream)).cursor
    with pytest.raises(LimitError, match=r"3 standing questions.*XL3M_MAX_STANDING_QUESTIONS"):
        await store.questions.ask(stream, "more", QuestionRecord("more?"), most=3)
    with pytest.raises(LimitError):
        await store.questions.ask(stream, "once", QuestionRecord("once?"), most=3)
    assert (await store.questions.load(stream), (await store.load(stream)).cursor) == before
    assert await store.scored_range(stream, "more") is None
    await store.questions.ask(
        stream, "1", QuestionRecord("1?", set_at=9.0), most=2
    )  # it exists already
    await store.questions.ask(stream, "new", QuestionRecord("new?"), keep=False, most=1)
    assert set(await store.questions.load(stream)) == {"once", "new"}


@pytest.mark.guarantee("Bounded counts")
async def test_the_ad_hoc_question_asked_least_recently_is_evicted(
    store: StreamStore, fresh: Fresh
) -> None:
    stream, soon = fresh("stream"), time.time() + HOUR
    await store.questions.ask(stream, "standing", QuestionRecord("standing?"))
    for number in range(3):
        await store.questions.ask(
            stream, f"{number}", QuestionRecord(f"{number}?", soon + number), most=3
        )
    await store.questions.ask(
        stream, "0", QuestionRecord("0?", soon + 10), most=3
    )  # now 1 was asked least recently
    await store.questions.ask(stream, "3", QuestionRecord("3?", soon + 11), most=3)
    assert set(await store.questions.load(stream)) == {"standing", "0", "2", "3"}
    found = [key async for key in store.redis.scan_iter(match=f"*{stream}*:range:*")]
    assert sorted(key.decode().rpartition(":")[2] for key in found) == ["0", "2", "3", "standing"]


async def test_ending_the_questions_of_an_unknown_stream_creates_none(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await store.questions.end_standing(stream)
    assert not await store.redis.exists(keys.cursor(stream), keys.questions(stream))


@pytest.mark.guarantee("Standing questions")
async def test_a_question_is_reissued_with_nothing_scored_unless_it_was_ended(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "theirs", QuestionRecord("q?", set_at=5.0))
    await store.questions.ask(stream, "ended", QuestionRecord("ended?"))
    await store.questions.ask(stream, "once", QuestionRecord("once?", time.time() + HOUR))
    ended = await store.questions.load(stream)
    await store.questions.end_standing(stream)
    await store.questions.ask(stream, "theirs", ended["theirs"])
    for qid in ("theirs", "ended", "once"):
        await store.questions.reissue(stream, qid, f"mine, {qid}")
    known = await store.questions.load(stream)
    assert {*known} == {"mine, theirs", "once"}
    assert known["mine, theirs"] == QuestionRecord("q?", set_at=5.0)
    assert await store.scored_range(stream, "theirs") is None
    await store.questions.ask(stream, "another's", QuestionRecord("q?", set_at=2.0))
    await store.questions.reissue(stream, "another's", "mine, theirs")
    assert await store.questions.load(stream) == known, "an existing question stays as it is"


@pytest.mark.guarantee("Bounded memory")
async def test_ended_questions_are_deleted_with_their_scores(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    await store.questions.ask(stream, "once", QuestionRecord("once?", time.time() + HOUR))
    await extended(store, stream, ScoredRange(0, 0), 0, [-1.0])
    await store.questions.end_standing(stream)
    assert list(await store.questions.load(stream)) == ["once"]
    assert await ttls(store, stream) == []
    assert (await store.load(stream)).cursor.questions == 3


@pytest.mark.guarantee("Answer contents")
async def test_a_snapshot_is_of_one_instant(store: StreamStore, fresh: Fresh) -> None:
    stream, stop = fresh("stream"), asyncio.Event()
    await store.questions.ask(stream, "q", QuestionRecord("q?"))

    async def write() -> None:
        state = State()
        for i in range(60):
            state = await written(store, step(stream, state))
            await extended(store, stream, ScoredRange(0, i), i, [-1.0 / (i + 1)], k=3)
        stop.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        while not stop.is_set():
            view = await store.snapshot(stream, "q")
            assert view is not None
            hi, head = view.scored_range.hi, view.state.cursor.head
            assert 0 <= head - hi <= 1
            assert view.state.tail.index == head
            assert [s.index for s, _ in view.top] == list(range(hi))[::-1][:3]


async def test_questions_expire_by_the_clock_of_redis(
    store: StreamStore, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a worker may be hours slow or fast."""
    real = time.time
    for off in (-7200.0, 7200.0):
        stream = fresh("stream")
        monkeypatch.setattr(time, "time", lambda off=off: real() + off)
        now = await store.questions.now()
        assert abs(now - real()) < 60
        await store.questions.ask(stream, "q", QuestionRecord("q?", now + HOUR, now))
        await store.questions.ask(stream, "r", QuestionRecord("r?", now + HOUR, now))
        assert {*await store.questions.load(stream)} == {"q", "r"}
        assert await store.scored_range(stream, "q") is not None


# -- the texts of the top-k ----------------------------------------------------------------------


async def scored(store: StreamStore, stream: str, count: int, k: int = 3) -> RangeResult:
    """Score the stream's first segments for its question, the first ones best."""
    rows = rows_of([-1.0 * index for index in range(count)])
    update = RangeUpdate(stream, "q", ScoredRange(0, 0), 0, count, [(0, rows)])
    return (await store.extend_range([update], k))[0].result


async def received_bytes(store: StreamStore) -> int:
    """The number of bytes that Redis has received from its clients."""
    return int((await store.redis.info("stats"))["total_net_input_bytes"])


async def test_texts_of_the_top_k_are_not_sent_a_second_time(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    large = [replace(segment(index), text=f"{index}" * 100_000) for index in range(3)]
    await written(store, replace(step(stream, State()), segments=large, tail=Tail(index=3)))
    before = await received_bytes(store)
    assert await scored(store, stream, 3) is TOP_CHANGED
    assert await received_bytes(store) - before < 10_000
    view = await store.snapshot(stream, "q")
    assert view is not None and [s for s, _ in view.top] == large


async def test_a_segment_deleted_since_it_was_read_does_not_enter_the_top_k(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await store.questions.ask(stream, "q", QuestionRecord("q?"))
    await grown(store, stream, 4)
    await store.redis.xdel(keys.log(stream), "0-1")
    assert await scored(store, stream, 4) is TOP_CHANGED
    view = await store.snapshot(stream, "q")
    assert view is not None and view.scored_range == ScoredRange(0, 4)
    assert [s.index for s, _ in view.top] == [1, 2, 3]
