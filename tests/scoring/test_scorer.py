"""Scoring: however it is driven, a stream's result is the one a batch over the whole log gives."""

import asyncio
import json
import math
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.runtime import retry
from stream_app.runtime.retry import Health
from stream_app.scoring.prefilter import Prefilter
from stream_app.scoring.scorer import Scorer
from stream_app.store import keys as layout
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.state import Commit, Cursor, QuestionRecord, ScoredRange
from stream_app.store.store import StreamStore
from tests.support import tiny
from tests.support.fakes import (
    PLENTY,
    FailingStore,
    HashEngine,
    batch,
    best,
    on_redis,
    running,
    until,
)
from xl3m_core import Engine
from xl3m_core.engine import Scores

Fresh = Callable[[str], str]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a Redis that is only said to be away."""
    monkeypatch.setattr(retry, "BACKOFF_SECONDS", (0.0,))


class World:
    """A store, and one or more scorings on it, driven by hand."""

    def __init__(self, store: StreamStore, engine: Engine | None = None, backlog: int = PLENTY):
        self.store = store
        self.engine = engine or HashEngine()
        self.scoring = self.another(backlog)
        self.text: dict[str, str] = {}

    def another(self, backlog: int = PLENTY) -> Scorer:
        """One more scoring on the same Redis."""
        return Scorer(self.engine, self.store, Health(), backlog)

    async def grow(
        self, stream: str, segments: int, *also: Scorer, partition: str = "t/0"
    ) -> Cursor:
        """So many segments more."""
        width = self.engine.method.segment_tokens
        base = await self.store.load(stream)
        lines = range(base.cursor.head, base.cursor.head + segments + (base.cursor.version == 0))
        text = "".join(f"{i}".rjust(width - 1, ".") + "\n" for i in lines)
        self.text[stream] = self.text.get(stream, "") + text
        tail, new = self.engine.segmenter().push(base.tail, text)
        assert len(new) == segments
        commit = Commit(stream, base, new, tail, partition, 1, base.cursor.head + 1)
        (state,) = await self.store.commit([commit])
        assert state is not None
        for scoring in (self.scoring, *also):
            scoring.streams.on_commit(stream, state.cursor)
        return state.cursor

    async def ask(self, stream: str, question: str = "q?", ttl: float = 0) -> str:
        """A question; current, if it is given no time to live."""
        qid = self.scoring.question_id(question)
        until = time.time() + ttl if ttl else 0.0
        await self.store.ask(stream, qid, QuestionRecord(question, until), keep=True)
        self.scoring.streams.on_questions_changed(stream)
        return qid

    async def drain(self) -> int:
        """Step until there is nothing left to score."""
        steps = 0
        while await self.scoring.step():
            steps += 1
        return steps

    async def range(self, stream: str, qid: str) -> ScoredRange:
        scored = await self.store.scored_range(stream, qid)
        assert scored is not None
        return scored

    async def scores(self, stream: str, qid: str) -> list[float]:
        """Every score of the range, as Redis keeps them."""
        scored = await self.range(stream, qid)
        raw = b""
        for number in range(scored.hi // layout.SCORES_PER_BLOCK + 1):
            raw += await self.store.redis.get(keys.scores(stream, qid, number)) or b""
        return list(struct.unpack(f"{len(raw) // 4}f", raw))[scored.lo : scored.hi]

    async def assert_equals_batch(self, stream: str, question: str = "q?") -> None:
        """Top-k and all scores are those of the text scored at once."""
        qid = self.scoring.question_id(question)
        _, segments = batch(self.engine, self.text[stream])
        view = await self.store.snapshot(stream, qid)
        assert view is not None
        assert view.scored_range == ScoredRange(0, len(segments))
        assert [(s.index, score) for s, score in view.top] == best(self.engine, segments, question)
        assert [s.text for s, _ in view.top] == [segments[s.index].text for s, _ in view.top]
        pairs = [(segment.text, question) for segment in segments]
        assert await self.scores(stream, qid) == self.engine.score(pairs)


@pytest.fixture
def store(redis_client: Redis) -> StreamStore:
    """One with room for everything."""
    return StreamStore(redis_client, PLENTY, PLENTY)


@pytest.fixture
def world(store: StreamStore) -> World:
    """A scoring on it."""
    return World(store)


GROW = st.tuples(st.just("grow"), st.sampled_from("ab"), st.integers(1, 9))
ASK = st.tuples(st.just("ask"), st.sampled_from("ab"), st.sampled_from(["one?", "two?"]))
ONCE = st.tuples(st.just("once"), st.sampled_from("ab"), st.sampled_from(["one?", "two?"]))
STEP = st.tuples(st.just("step"), st.just(""), st.integers(1, 3))
OPS = st.lists(GROW | ASK | ONCE | STEP | STEP, max_size=14)


@pytest.mark.guarantee("Stream equals batch")
@on_redis
@given(OPS)
async def test_any_interleaving_comes_to_what_the_batch_does(
    redis_client: Redis, fresh: Fresh, ops: list[tuple[str, str, Any]]
) -> None:
    world, names = World(StreamStore(redis_client, PLENTY, PLENTY)), {s: fresh(s) for s in "ab"}
    current = set()
    for what, stream, value in ops:
        if what == "step":
            for _ in range(value):
                await world.scoring.step()
        elif what == "grow":
            await world.grow(names[stream], value)
        else:
            await world.ask(names[stream], value, ttl=0 if what == "ask" else 60)
            current |= {(names[stream], value)} if what == "ask" else set()
    for stream in names.values():
        await world.grow(stream, 1)
    await world.drain()
    for stream, question in current:
        await world.assert_equals_batch(stream, question)
    assert (world.scoring.streams.lag(), world.scoring.streams.lagging) == (0, {})


@pytest.mark.guarantee("Stream equals batch")
@on_redis
@given(st.lists(GROW | ASK, max_size=12))
async def test_steps_that_overlap_come_to_what_steps_one_by_one_do(
    redis_client: Redis, fresh: Fresh, ops: list[tuple[str, str, Any]]
) -> None:
    world, names = World(StreamStore(redis_client, PLENTY, PLENTY)), {s: fresh(s) for s in "ab"}
    current = {(names["a"], "one?")}
    await world.ask(names["a"], "one?")
    async with running(world.scoring):
        for what, stream, value in ops:
            if what == "grow":
                await world.grow(names[stream], value)
            else:
                await world.ask(names[stream], value)
                current.add((names[stream], value))
        for stream in names.values():
            await world.grow(stream, 20)
        heads = {s: (await world.store.load(s)).cursor.head for s in names.values()}
        for stream, question in current:
            qid = world.scoring.question_id(question)
            while await world.range(stream, qid) != ScoredRange(0, heads[stream]):
                pass  # a round trip each time
    assert isinstance(world.engine, HashEngine)
    needed = sum(heads[stream] for stream, _ in current)
    assert len(world.engine.scored) == needed, "nothing is scored twice"
    for stream, question in current:
        await world.assert_equals_batch(stream, question)


@pytest.mark.guarantee("Exactly-once effect")
@on_redis
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(0, 8))
async def test_two_scorings_of_a_stream_lose_and_double_nothing(
    redis_client: Redis, fresh: Fresh, grows: list[int], asked_at: int
) -> None:
    world, stream = World(StreamStore(redis_client, PLENTY, PLENTY)), fresh("stream")
    other = world.another()
    for i, count in enumerate(grows):
        if i == min(asked_at, len(grows) - 1):
            await world.ask(stream)
        await world.grow(stream, count, other)
        await asyncio.gather(world.scoring.step(), other.step())
    await asyncio.gather(world.drain(), settled(other))
    await world.assert_equals_batch(stream)


async def settled(scoring: Scorer) -> None:
    while await scoring.step():
        pass


@pytest.mark.guarantee("Stream equals batch")
async def test_a_real_model_gives_the_scores_of_the_batch(store: StreamStore, fresh: Fresh) -> None:
    engine = tiny.engine(tiny.model(), batch_tokens=512)
    world, stream = World(store, engine), fresh("stream")
    qid = await world.ask(stream, "which pump?")
    text = "".join(f"pump {i} is {'low' if i % 7 else 'down'}\n" for i in range(60))
    tail, segments = batch(engine, text)
    (state,) = await store.commit(
        [Commit(stream, await store.load(stream), segments, tail, "t/0", 1, 1)]
    )
    assert state is not None
    world.scoring.streams.on_commit(stream, state.cursor)
    await world.drain()
    scores = engine.score([(segment.text, "which pump?") for segment in segments])
    assert await world.scores(stream, qid) == pytest.approx(scores, abs=2e-4)


# -- what is scored first ------------------------------------------------------------------------


@pytest.mark.guarantee("Scheduling")
async def test_the_live_edge_comes_before_the_history(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.grow(stream, 20)
    qid = await world.ask(stream)
    await world.grow(stream, 3)
    await world.scoring.step()
    assert await world.range(stream, qid) == ScoredRange(15, 23)
    await world.grow(stream, 9)
    await world.scoring.step()
    assert await world.range(stream, qid) == ScoredRange(15, 31)
    await world.drain()
    await world.assert_equals_batch(stream)


@pytest.mark.guarantee("Coverage")
async def test_a_late_question_walks_back_over_what_is_retained(
    redis_client: Redis, fresh: Fresh
) -> None:
    world, stream = World(StreamStore(redis_client, 9, PLENTY)), fresh("stream")
    await world.grow(stream, 30)
    qid = await world.ask(stream)
    await world.drain()
    assert await world.range(stream, qid) == ScoredRange(21, 30)
    assert not any(map(math.isnan, await world.scores(stream, qid)))


@pytest.mark.guarantee("Scheduling")
async def test_what_a_query_waits_for_comes_first(world: World, fresh: Fresh) -> None:
    current, asked = fresh("stream"), fresh("stream")
    await world.grow(current, 40)
    await world.grow(asked, 8)
    standing, once = await world.ask(current), await world.ask(asked, "now?", ttl=60)
    covering = asyncio.create_task(
        world.scoring.wait_until_covered(asked, once, time.monotonic() + 60)
    )
    await until(lambda: world.scoring.waiters and world.scoring.waiters[0].head)
    await world.scoring.step()
    assert await world.range(asked, once) == ScoredRange(3, 8)  # three quarters of a step
    assert await world.range(current, standing) == ScoredRange(38, 40)
    await world.drain()
    await covering
    assert await world.range(asked, once) == ScoredRange(0, 8)


@pytest.mark.guarantee("Scheduling")
async def test_a_small_query_does_not_wait_for_a_large_one(world: World, fresh: Fresh) -> None:
    large, small = fresh("stream"), fresh("stream")
    await world.grow(large, 200)
    await world.grow(small, 8)
    until_ = time.monotonic() + 60
    asked = [(stream, await world.ask(stream, "now?", ttl=60)) for stream in (large, small)]
    first, second = [
        asyncio.create_task(world.scoring.wait_until_covered(*one, until_)) for one in asked
    ]
    await until(lambda: len(world.scoring.waiters) == 2 and world.scoring.waiters[1].head)
    for _ in range(3):
        await world.scoring.step()
    await second
    assert not first.done()
    await world.drain()
    await first


@pytest.mark.guarantee("Scheduling")
async def test_a_step_over_more_streams_than_redis_has_connections_for(
    store: StreamStore, fresh: Fresh
) -> None:
    world, count = World(store, HashEngine(batch_segments=200)), 150
    streams = [fresh("stream") for _ in range(count)]
    for stream in streams:
        await world.ask(stream)
        await world.grow(stream, 1)
    await world.scoring.streams.refresh()
    async with asyncio.timeout(20):
        assert await world.drain() == 1
    assert not world.scoring.streams.lagging


@pytest.mark.guarantee("Scheduling")
async def test_streams_share_a_step_alike(world: World, fresh: Fresh) -> None:
    streams = [fresh("stream") for _ in range(4)]
    qids = [await world.ask(stream) for stream in streams]
    for stream in streams:
        await world.grow(stream, 10)
    await world.scoring.step()
    ranges = [await world.range(s, q) for s, q in zip(streams, qids, strict=True)]
    assert ranges == [ScoredRange(0, 2)] * 4


@pytest.mark.guarantee("Scheduling")
async def test_more_streams_than_a_step_has_room_for_take_turns(world: World, fresh: Fresh) -> None:
    streams = [fresh("stream") for _ in range(20)]
    qids = [await world.ask(stream) for stream in streams]
    for stream in streams:
        await world.grow(stream, 30)
    for _ in range(20):
        await world.scoring.step()
    done = [(await world.range(s, q)).hi for s, q in zip(streams, qids, strict=True)]
    assert done == [8] * 20


async def test_a_step_is_one_batch_of_the_model(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.ask(stream, "one?")
    await world.ask(stream, "two?")
    await world.grow(stream, 50)
    await world.scoring.step()
    assert isinstance(world.engine, HashEngine)
    assert len(world.engine.scored) == 8


# -- when others write too -----------------------------------------------------------------------


@pytest.mark.guarantee("Exactly-once effect")
async def test_a_refused_extension_is_read_again_and_goes_on(world: World, fresh: Fresh) -> None:
    stream, other = fresh("stream"), world.another()
    await world.ask(stream)
    await world.grow(stream, 20, other)
    await world.scoring.step()
    await other.step()
    await other.step()
    await world.scoring.step()
    assert stream in world.scoring.streams.stale
    await world.drain()
    await world.assert_equals_batch(stream)


@pytest.mark.guarantee("Standing questions")
async def test_a_question_set_while_the_stream_is_read_is_not_missed(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, tracked = fresh("stream"), world.store.tracked
    await world.grow(stream, 3)

    async def slow(name: str) -> Any:
        known = await tracked(name)
        monkeypatch.setattr(world.store, "tracked", tracked)
        await world.ask(stream)
        return known

    monkeypatch.setattr(world.store, "tracked", slow)
    await world.drain()
    await world.assert_equals_batch(stream)


async def test_what_is_read_last_is_what_is_kept(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, tracked, gate = fresh("stream"), world.store.tracked, asyncio.Event()
    await world.grow(stream, 3)

    async def slow(name: str) -> Any:
        known = await tracked(name)
        monkeypatch.setattr(world.store, "tracked", tracked)
        await gate.wait()
        return known

    monkeypatch.setattr(world.store, "tracked", slow)
    early = asyncio.create_task(
        world.scoring.wait_until_covered(stream, "unknown", time.monotonic() + 60)
    )
    await until(lambda: world.store.tracked is tracked)
    await world.ask(stream)
    later = asyncio.create_task(world.scoring.streams.refresh())
    for _ in range(20):  # time enough for the later reader to be done, if nothing held it back
        await world.store.redis.ping()
    gate.set()
    await asyncio.gather(early, later)
    await world.drain()
    await world.assert_equals_batch(stream)


async def test_a_question_that_ended_is_scored_no_more(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    qid = await world.ask(stream)
    await world.grow(stream, 20)
    await world.scoring.step()
    await world.store.end_questions(stream)
    await world.drain()
    assert await world.store.scored_range(stream, qid) is None
    assert (world.scoring.streams.lag(), world.scoring.streams.tracked[stream].questions) == (
        0,
        {},
    )


@pytest.mark.guarantee("Standing questions")
async def test_a_question_too_long_is_left_alone(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.ask(stream, "x" * 200)
    await world.grow(stream, 3)
    assert await world.drain() == 0


@pytest.mark.guarantee("Standing questions")
async def test_a_current_question_another_model_scored_is_begun_anew(
    world: World, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await world.grow(stream, 30)
    await world.store.ask(stream, "another-model", QuestionRecord("q?"))
    world.scoring.streams.own([stream])
    await world.drain()
    assert list(await world.store.questions(stream)) == [world.scoring.question_id("q?")]
    assert await world.store.scored_range(stream, "another-model") is None
    await world.assert_equals_batch(stream, "q?")


@pytest.mark.guarantee("Redis outages")
@pytest.mark.parametrize("failing", ["before", "after"])
async def test_a_redis_that_fails_for_a_while_costs_nothing(
    failing: str, redis_client: Redis, fresh: Fresh
) -> None:
    world, stream = World(FailingStore(redis_client)), fresh("stream")
    await world.ask(stream)
    await world.grow(stream, 20)
    setattr(world.store, failing, 3)
    await world.drain()
    await world.assert_equals_batch(stream)
    assert world.scoring.health.ok


@pytest.mark.guarantee("Exactly-once effect")
async def test_a_notice_that_fails_doubles_nothing(redis_client: Redis, fresh: Fresh) -> None:
    world, stream = World(StreamStore(redis_client, 4, PLENTY)), fresh("stream")
    qid = await world.ask(stream)
    await world.grow(stream, 7)
    world.store.redis = FailingPublish(redis_client)
    await world.drain()
    assert world.store.redis.failed
    assert await world.range(stream, qid) == ScoredRange(0, 7, 3)


class Overlapping(HashEngine):
    """Completes a step only when its event is set; announces each step that begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Queue[threading.Event]()
        self.loop = asyncio.get_running_loop()
        self.fails = False

    def timed_score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        ended, scores = threading.Event(), self.score(pairs)
        self.loop.call_soon_threadsafe(self.begun.put_nowait, ended)
        ended.wait(20)
        if self.fails:
            raise ZeroDivisionError
        return Scores(scores, 0.1)


Overlap = tuple[World, Overlapping, str, str]


@pytest.fixture
async def overlap(store: StreamStore, fresh: Fresh) -> Overlap:
    """Several steps' worth of one stream, and its question."""
    engine, stream = Overlapping(), fresh("stream")
    world = World(store, engine)
    await world.grow(stream, 40)
    return world, engine, stream, await world.ask(stream)


@pytest.mark.guarantee("Scheduling")
async def test_a_step_begins_before_the_last_one_is_written_and_all_comes_out_as_one_by_one(
    overlap: Overlap,
) -> None:
    world, engine, stream, qid = overlap

    async def all_is_scored() -> bool:
        with suppress(asyncio.QueueEmpty):
            engine.begun.get_nowait().set()
        return await world.range(stream, qid) == ScoredRange(0, 40)

    async with running(world.scoring):
        first = await engine.begun.get()
        second = await engine.begun.get()
        assert (await world.range(stream, qid)).lo == (await world.range(stream, qid)).hi
        assert await world.scoring.run_on_model(lambda: "asked meanwhile") == "asked meanwhile"
        for ended in (first, second):
            ended.set()
        await until(all_is_scored)
    await world.assert_equals_batch(stream)


@pytest.mark.guarantee("Scheduling")
async def test_a_step_that_fails_ends_scoring_and_what_was_begun_behind_it_is_not_written(
    overlap: Overlap,
) -> None:
    world, engine, stream, qid = overlap
    scoring = asyncio.create_task(world.scoring.run())
    first, second = await engine.begun.get(), await engine.begun.get()
    engine.fails = True
    first.set()
    with pytest.raises(ZeroDivisionError):
        await scoring
    second.set()
    scored = await world.range(stream, qid)
    assert scored.lo == scored.hi
    assert await world.scoring.run_on_model(lambda: "still there") == "still there"


class FailingPublish:
    """A Redis that fails to publish, once."""

    def __init__(self, redis: Redis) -> None:
        self.redis, self.failed = redis, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.redis, name)

    def pipeline(self, transaction: bool) -> Any:
        pipe: Any = self.redis.pipeline(transaction=transaction)
        execute = pipe.execute

        async def fail_first(**options: Any) -> Any:
            publishes = any(args[0] == "PUBLISH" for args, _ in pipe.command_stack)
            if publishes and not self.failed:
                self.failed = True
                raise ConnectionError("broken")
            return await execute(**options)

        pipe.execute = fail_first
        return pipe


# -- back-pressure and retention -----------------------------------------------------------------


@pytest.mark.guarantee("Backpressure")
async def test_a_partition_is_far_behind_while_too_much_is_unscored(
    store: StreamStore, fresh: Fresh
) -> None:
    world, stream = World(store, backlog=3 * 12), fresh("stream")
    told = list[int]()
    world.scoring.on_room = lambda: told.append(world.scoring.streams.lag())
    await world.ask(stream)
    await world.grow(stream, 20)
    await world.scoring.streams.refresh()
    assert world.scoring.streams.lag() == 20
    while world.scoring.streams.lag() > 3:
        assert world.scoring.throttled_partitions() == {"t/0"}
        await world.scoring.step()
        assert told[-1] == world.scoring.streams.lag()
    assert world.scoring.throttled_partitions() == set()


@pytest.mark.guarantee("Backpressure")
async def test_only_current_questions_of_owned_streams_are_a_backlog(
    store: StreamStore, fresh: Fresh
) -> None:
    world, mine, lost = World(store, backlog=1), fresh("mine"), fresh("lost")
    await world.ask(mine, "once?", ttl=60)
    for stream in (mine, lost):
        await world.ask(stream)
        await world.grow(stream, 20)
    await world.scoring.streams.refresh()
    assert world.scoring.streams.lag() == 40
    world.scoring.streams.disown([lost, fresh("unheard of")])
    assert world.scoring.streams.lag() == 20
    await world.drain()
    assert world.scoring.throttled_partitions() == set()


@pytest.mark.guarantee("Backpressure")
async def test_a_backlog_is_its_partitions_and_nobody_elses(
    store: StreamStore, fresh: Fresh
) -> None:
    world, hot, slow = World(store, backlog=3 * 12), fresh("hot"), fresh("slow")
    for stream, segments, partition in ((hot, 20, "t/0"), (slow, 2, "t/1")):
        await world.ask(stream)
        await world.grow(stream, segments, partition=partition)
    await world.scoring.streams.refresh()
    assert world.scoring.throttled_partitions() == {"t/0"}
    await world.grow(slow, 3, partition="t/2")
    assert world.scoring.streams.lag_by_partition() == {"t/0": 20, "t/1": 5, "t/2": 5}, (
        "of both its own"
    )


@pytest.mark.guarantee("Retention")
async def test_what_retention_took_first_is_skipped_and_no_score(
    redis_client: Redis, fresh: Fresh
) -> None:
    world, stream = World(StreamStore(redis_client, 3, PLENTY)), fresh("stream")
    qid = await world.ask(stream)
    await world.grow(stream, 10)
    await world.drain()
    assert await world.range(stream, qid) == ScoredRange(0, 10, 7)
    scores = await world.scores(stream, qid)
    assert [math.isnan(score) for score in scores] == [True] * 7 + [False] * 3
    view = await world.store.snapshot(stream, qid)
    assert view is not None and {s.index for s, _ in view.top} == {7, 8, 9}


# -- queries -------------------------------------------------------------------------------------


@pytest.mark.guarantee("Coverage")
async def test_a_query_returns_at_its_deadline_with_what_there_is(
    world: World, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await world.grow(stream, 20)
    qid = await world.ask(stream, ttl=60)
    await world.scoring.wait_until_covered(stream, qid, time.monotonic() + 0)
    assert await world.range(stream, qid) == ScoredRange(20, 20)
    assert world.scoring.waiters == []


@pytest.mark.guarantee("Coverage")
async def test_a_query_returns_when_its_question_is_covered(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.grow(stream, 100)
    qid = await world.ask(stream, ttl=60)
    async with running(world.scoring):
        await world.scoring.wait_until_covered(stream, qid, time.monotonic() + 60)
    await world.assert_equals_batch(stream)
    await world.scoring.wait_until_covered(stream, qid, time.monotonic() + 60)


@pytest.mark.guarantee("Coverage")
async def test_any_worker_scores_for_a_query_and_forgets_the_stream(
    world: World, fresh: Fresh
) -> None:
    stream, other = fresh("stream"), world.another()
    await world.grow(stream, 50)
    qids = [await world.ask(stream, f"{i}?", ttl=60) for i in range(5)]
    async with running(other):
        await asyncio.gather(
            *(other.wait_until_covered(stream, qid, time.monotonic() + 60) for qid in qids)
        )
        await asyncio.gather(
            *(other.wait_until_covered(stream, qid, time.monotonic() + 0) for qid in qids)
        )
    for i in range(5):
        await world.assert_equals_batch(stream, f"{i}?")
    assert (other.streams.tracked, other.streams.lagging, other.waiters) == ({}, {}, [])


async def test_queries_that_come_and_go_do_not_disturb_each_other(
    world: World, fresh: Fresh
) -> None:
    stream, other = fresh("stream"), world.another()
    await world.grow(stream, 30)
    qid = await world.ask(stream, ttl=60)

    async def impatient(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await other.wait_until_covered(stream, qid, time.monotonic() + 0)

    await asyncio.gather(*map(impatient, range(40)))
    assert (other.streams.tracked, other.waiters) == ({}, [])


@pytest.mark.guarantee("Coverage")
async def test_a_query_goes_on_though_its_stream_changes_hands(world: World, fresh: Fresh) -> None:
    stream, other = fresh("stream"), world.another()
    await world.grow(stream, 30)
    qid = await world.ask(stream, ttl=60)
    covering = asyncio.create_task(other.wait_until_covered(stream, qid, time.monotonic() + 60))
    await until(lambda: other.waiters and other.waiters[0].head)
    for change in (other.streams.own, other.streams.disown):
        change([stream])
        other._release_waiters()
        await other.step()
        assert not covering.done()
    await settled(other)
    await covering
    await world.assert_equals_batch(stream)
    assert other.streams.tracked == {}


class Pointing(Prefilter):
    """A scout that names these segments."""

    def __init__(self, *picks: int) -> None:
        self.named = picks

    async def candidates(self, *_: Any) -> list[int]:
        return [*self.named]


async def pointed(world: World, stream: str, qid: str, *picks: int) -> "asyncio.Task[None]":
    """A query that waits, once these segments are named for it."""
    world.scoring.prefilter.prefilter = Pointing(*picks)
    covering = asyncio.create_task(
        world.scoring.wait_until_covered(stream, qid, time.monotonic() + 60)
    )
    tracked = world.scoring.streams.tracked[stream]
    await until(lambda: qid in tracked.questions and tracked.questions[qid].candidates)
    return covering


@pytest.mark.guarantee("Coverage")
async def test_what_a_scout_names_is_scored_first_and_in_the_end_all_is(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.scoring.prefilter.PREFILTER_SEGMENTS", 50)
    stream = fresh("stream")
    await world.grow(stream, 100)
    qid = await world.ask(stream, ttl=60)
    covering = await pointed(world, stream, qid, 7, 98, 23)
    await world.scoring.step()
    view = await world.store.snapshot(stream, qid)
    assert view and {segment.index for segment, _ in view.top} == {7, 23, 98}
    await world.drain()
    await covering
    await world.assert_equals_batch(stream)


@pytest.mark.guarantee("Coverage")
async def test_what_came_since_a_question_was_asked_is_looked_through_too(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.scoring.prefilter.PREFILTER_SEGMENTS", 50)
    stream = fresh("stream")
    await world.grow(stream, 60)
    assert isinstance(world.engine, HashEngine)
    qid = await world.ask(stream, ttl=60)
    for pick in (31, 131):
        covering = await pointed(world, stream, qid, pick)
        before = len(world.engine.scored)
        await world.scoring.step()
        (named,) = await world.store.segments(stream, pick, pick + 1)
        assert [text for text, _ in world.engine.scored[before:]] == [named.text]
        await world.drain()
        await covering
        await world.grow(stream, 80)


async def test_a_query_whose_question_ends_is_let_go(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.grow(stream, 30)
    qid = await world.ask(stream)
    covering = asyncio.create_task(
        world.scoring.wait_until_covered(stream, qid, time.monotonic() + 60)
    )
    await until(lambda: world.scoring.waiters and world.scoring.waiters[0].head)
    await world.store.end_questions(stream)
    world.scoring.streams.on_questions_changed(stream)
    await world.drain()
    await covering


@pytest.mark.guarantee("Coverage")
async def test_a_question_asked_once_is_scored_for_its_query_alone(
    world: World, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await world.grow(stream, 5)
    qid = await world.ask(stream, ttl=60)
    assert await world.drain() == 0
    assert await world.range(stream, qid) == ScoredRange(5, 5)


# -- what others are told ------------------------------------------------------------------------


async def test_a_change_of_the_top_k_is_published(world: World, fresh: Fresh) -> None:
    stream = fresh("strëam")
    qid = await world.ask(stream)
    async with world.store.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(keys.update_channel(stream))
        await world.grow(stream, 5)
        await world.drain()
        message = await anext(pubsub.listen())
    assert json.loads(message["data"]) == {
        "stream": stream, "question": "q?", "question_id": qid, "range": [0, 5]
    }  # fmt: skip


async def test_a_change_is_published_though_the_stream_was_read_again_meanwhile(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, extend = fresh("stream"), world.store.extend_range
    await world.ask(stream)
    await world.grow(stream, 5)

    async def reread(extensions: Any, k: int) -> Any:
        done = await extend(extensions, k)
        await world.scoring.streams.load(stream)
        return done

    monkeypatch.setattr(world.store, "extend_range", reread)
    async with world.store.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(keys.update_channel(stream))
        await world.drain()
        message = await anext(pubsub.listen())
    assert json.loads(message["data"])["range"] == [0, 5]
    await world.assert_equals_batch(stream)


async def test_every_turn_of_the_model_counts_whatever_comes_of_it(world: World) -> None:
    before = world.scoring.model_calls
    await world.scoring.run_on_model(lambda: None)
    with pytest.raises(ZeroDivisionError):
        await world.scoring.run_on_model(lambda: 1 / 0)
    assert world.scoring.model_calls == before + 2
