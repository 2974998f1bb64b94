"""Rows: whatever the order in which segments are read, Redis holds what a slow twin computes from
all rows at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.scoring.jobs import TrackedQuestion, range_update
from stream_app.store import keys as layout
from stream_app.store.range_update import RangeResult
from stream_app.store.ranking import ranked
from stream_app.store.rows import flag_of, pack_row
from stream_app.store.state import (
    Commit,
    Committed,
    QuestionRecord,
    Retention,
    ScoredRange,
    State,
)
from stream_app.store.store import StreamStore
from tests.support.fakes import PLENTY, on_redis
from xl3m_core import Segment, Tail
from xl3m_core.features import Features, exact, pack
from xl3m_core.smoothing import REACH, smoothed

Fresh = Callable[[str], str]
INF = float("inf")
K = 3


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four rows."""
    monkeypatch.setattr(layout, "ROWS_PER_BLOCK", 4)


@dataclass(frozen=True)
class Scored:
    """What the model would say of a segment."""

    score: float
    is_smoothed: bool

    def features(self, index: int) -> Features:
        return exact(Features(self.score, lexical=index / 7))

    def row(self, index: int) -> bytes:
        flag = flag_of(is_running_text=self.is_smoothed, is_smoothed=self.is_smoothed)
        return pack_row(self.score, flag, self.features(index))


@dataclass
class Twin:
    """The slow twin: it ranks all segments anew each time. read: those with a row; settled: those
    that were settled while the log had them."""

    scored: Sequence[Scored]
    read: set[int] = field(default_factory=set)
    settled: set[int] = field(default_factory=set)

    def write(self, indices: Sequence[int], first: int) -> None:
        self.read |= {index for index in indices if index >= first}
        self.settled |= {i for i in self.read if i >= first and self._is_settled(i, first)}

    def _is_settled(self, index: int, first: int) -> bool:
        near = range(max(index - REACH, first), index + REACH + 1)
        return not self.scored[index].is_smoothed or self.read.issuperset(near)

    def score(self, index: int) -> float | None:
        """A segment's own score."""
        known = index in self.read and self.scored[index].score > -INF
        return self.scored[index].score if known else None

    def best(self, indices: set[int], k: int = K) -> list[tuple[int, float]]:
        """The k best of these by their final scores."""
        scores = {i: score for i in indices if (score := self._final(i)) is not None}
        return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]

    def _final(self, index: int) -> float | None:
        own = self.score(index)
        if own is None or not self.scored[index].is_smoothed:
            return own
        return smoothed(index, self.score)


class World:
    """A stream with a question, and the twin of its rows."""

    def __init__(self, redis: Redis, stream: str, scored: Sequence[Scored], retained: int) -> None:
        self.store, self.stream = StreamStore(redis, Retention(retained)), stream
        self.twin, self.state = Twin(scored), State()

    async def start(self) -> None:
        await self.store.questions.ask(self.stream, "q", QuestionRecord("q?"))
        self.question = TrackedQuestion(self.stream, "q", QuestionRecord("q?"), ScoredRange(0, 0))

    @property
    def first(self) -> int:
        return self.state.cursor.first

    @property
    def head(self) -> int:
        return self.state.cursor.head

    async def grow(self, count: int) -> None:
        """Write that many segments, as far as there are scores."""
        new = [
            Segment(i, f"text {i}", i, i + 1, i, i + 1)
            for i in range(self.head, min(self.head + count, len(self.twin.scored)))
        ]
        tail = Tail(index=self.head + len(new))
        commit = Commit(self.stream, self.state, new, tail, "t/0", 1, self.head)
        (result,) = await self.store.commit([commit])
        assert isinstance(result, Committed)
        self.state = result.state

    async def read(self, indices: Sequence[int], first: int | None = None) -> None:
        """Read these segments, as far as the log has them. first: the log's first segment as it
        was when they were planned."""
        wanted = tuple(sorted({i for i in indices if i < self.head}))
        job = self.question.scattered_job(wanted, self.state.cursor)
        rows = {i: self.twin.scored[i].row(i) for i in wanted}
        (reply,) = await self.store.extend_range([range_update(job, rows)], K)
        assert reply.result is not RangeResult.CONFLICT
        self.question.written(job, reply)
        self.twin.write(wanted, self.first)

    async def check(self) -> None:
        """Redis holds what the twin says."""
        view = await self.store.query_view(self.stream, "q")
        assert view.snapshot is not None
        assert view.snapshot.scored_range == self.question.scored_range
        assert view.snapshot.scored_range.read == len(self.twin.read)
        assert view.snapshot.coverage(0) == len(self.twin.read) / max(1, self.head)
        top = [(segment.index, score) for segment, score in view.snapshot.top]
        assert top == self.twin.best(self.twin.settled)
        assert {s.text for s, _ in view.snapshot.top} == {f"text {i}" for i, _ in top}
        await self.check_ranking()
        rows = await self.store.rows(self.stream, "q", self.first, self.head)
        assert [*rows.read()] == sorted(i for i in self.twin.read if i >= self.first)
        raw = [(rows.features(i), self.twin.scored[i].features(i)) for i in rows.read()]
        assert all(pack(found) == pack(written) for found, written in raw)

    async def check_ranking(self) -> None:
        """A query gets the best of all that is read and of the settled ones that were trimmed."""
        view = await self.store.query_view(self.stream, "q")
        assert view.snapshot is not None
        retained = {i for i in self.twin.read if i >= self.first}
        expected = self.twin.best(self.twin.settled | retained)
        snapshots = [await self.store.with_unsettled(self.stream, "q", view.snapshot, K)]
        snapshots += [view.snapshot] if view.is_covered else []
        for snapshot in snapshots:
            assert [(s.index, score) for s, score in ranked(snapshot, K)] == expected


SCORES = st.sampled_from([-0.5, -0.25, -0.1234, -3.0, 2.5, -1500.1234, -INF])
SCORED = st.lists(st.builds(Scored, SCORES, st.booleans()), min_size=1, max_size=24)
GROW = st.tuples(st.just("grow"), st.integers(1, 9))
READ = st.tuples(st.just("read"), st.lists(st.integers(0, 23), max_size=6))
STEP = st.tuples(st.just("step"), st.integers(1, 6))
OPS = st.lists(GROW | READ | STEP | READ, max_size=20)


@pytest.mark.guarantee("Scoring order")
@pytest.mark.guarantee("Stream equals batch")
@on_redis
@given(SCORED, OPS, st.sampled_from([5, 9, PLENTY]))
async def test_any_order_of_reading_gives_what_all_rows_at_once_give(
    redis_client: Redis, fresh: Fresh, scored: list[Scored], ops: list[Any], retained: int
) -> None:
    world = World(redis_client, fresh("stream"), scored, retained)
    await world.start()
    for what, value in ops:
        if what == "grow":
            await world.grow(value)
        elif what == "read":
            await world.read(value)
        else:
            job = world.question.next_job(world.state.cursor, value, history=True)
            world.question.reset_plan()
            await world.read(job.indices if job else ())
        await world.check()
    await world.grow(PLENTY)
    await world.read(range(world.first, world.head))
    await world.check()
    assert not world.question.is_behind(world.head, world.first)
    assert not world.question.unscored(world.state.cursor, history=True)


@pytest.mark.guarantee("Retention")
@pytest.mark.guarantee("Scoring order")
@pytest.mark.parametrize("is_read", [False, True])
async def test_segments_at_the_beginning_of_a_trimmed_log_are_settled_by_it(
    redis_client: Redis, fresh: Fresh, is_read: bool
) -> None:
    """Neighbours that were read count still, and unread ones are no longer waited for."""
    scored = [Scored(float(index), is_smoothed=True) for index in range(20)]
    world = World(redis_client, fresh("stream"), scored, retained=12)
    await world.start()
    await world.grow(12)
    await world.read([2, 3, 4, 5, 6] if is_read else [4, 5, 6])
    await world.check()
    await world.grow(4)
    assert world.first == 4
    await world.check()
    await world.read([12])
    assert world.twin.settled == {4}
    await world.check()
