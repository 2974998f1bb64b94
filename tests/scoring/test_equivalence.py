"""However scoring is driven, a stream's result is that of a batch over its whole log."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.runtime.retry import Health
from stream_app.scoring.jobs import Step, TrackedQuestion, TrackedStream
from stream_app.scoring.scorer import Scorer
from stream_app.store.state import Commit, Committed, Retention, ScoredRange
from stream_app.store.store import StreamStore
from tests.support import tiny
from tests.support.fakes import (
    FailingStore,
    HashEngine,
    batch,
    on_redis,
    running,
)
from tests.support.numbers import NumbersEngine
from tests.support.scoring import Fresh, World, drain

GROW = st.tuples(st.just("grow"), st.sampled_from("ab"), st.integers(1, 9))

ASK = st.tuples(st.just("ask"), st.sampled_from("ab"), st.sampled_from(["one?", "two?"]))

ONCE = st.tuples(st.just("once"), st.sampled_from("ab"), st.sampled_from(["one?", "two?"]))

STEP = st.tuples(st.just("step"), st.just(""), st.integers(1, 3))

OPS = st.lists(GROW | ASK | ONCE | STEP | STEP, max_size=14)


def small_steps(redis: Redis, triage: bool, is_talk: bool = False) -> World:
    """A world; in triage its steps are so small that its streams are far behind."""
    size = 2 if triage else 8
    engine = NumbersEngine(batch_segments=size) if is_talk else HashEngine(batch_segments=size)
    world = World(StreamStore(redis), engine, triage=triage)
    world.is_talk = is_talk
    return world


@pytest.mark.guarantee("Stream equals batch")
@pytest.mark.parametrize("is_talk", [False, True])
@on_redis
@given(OPS, st.booleans())
async def test_any_interleaving_gives_the_result_of_the_batch(
    redis_client: Redis,
    fresh: Fresh,
    is_talk: bool,
    ops: list[tuple[str, str, Any]],
    triage: bool,
) -> None:
    """In talk, segments are ranked by means over their neighbours."""
    world, names = small_steps(redis_client, triage, is_talk), {s: fresh(s) for s in "ab"}
    current = set()
    for what, stream, value in ops:
        if what == "step":
            for _ in range(value):
                await world.scorer.step()
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
    assert (world.scorer.streams.lag(), world.scorer.streams.lagging) == (0, {})


@pytest.mark.guarantee("Stream equals batch")
@on_redis
@given(st.lists(GROW | ASK, max_size=12), st.booleans())
async def test_overlapping_steps_give_the_result_of_single_steps(
    redis_client: Redis, fresh: Fresh, ops: list[tuple[str, str, Any]], triage: bool
) -> None:
    world, names = small_steps(redis_client, triage), {s: fresh(s) for s in "ab"}
    current = {(names["a"], "one?")}
    await world.ask(names["a"], "one?")
    async with running(world.scorer):
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
            qid = world.scorer.question_id(question)
            while await world.range(stream, qid) != ScoredRange(0, heads[stream]):
                pass  # a round trip each time
    assert isinstance(world.engine, HashEngine)
    needed = sum(heads[stream] for stream, _ in current)
    assert len(world.engine.scored) == needed, "nothing is scored twice"
    for stream, question in current:
        await world.assert_equals_batch(stream, question)


@pytest.mark.guarantee("Exactly-once effect")
@on_redis
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(0, 8), st.booleans())
async def test_two_scorers_of_a_stream_lose_and_double_nothing(
    redis_client: Redis, fresh: Fresh, grows: list[int], asked_after: int, triage: bool
) -> None:
    world, stream = small_steps(redis_client, triage), fresh("stream")
    other = world.another()
    for i, count in enumerate(grows):
        if i == min(asked_after, len(grows) - 1):
            await world.ask(stream)
        await world.grow(stream, count, other)
        await asyncio.gather(world.scorer.step(), other.step())
    await asyncio.gather(world.drain(), drain(other))
    await world.assert_equals_batch(stream)


SCATTER = st.tuples(st.just("scatter"), st.just(""), st.lists(st.integers(0, 40), max_size=9))


@pytest.mark.guarantee("Stream equals batch")
@pytest.mark.guarantee("Scoring order")
@on_redis
@given(st.lists(GROW | SCATTER | STEP | st.just(("restart", "", 0)), max_size=14))
async def test_scattered_segments_are_read_once_also_after_a_restart(
    redis_client: Redis, fresh: Fresh, ops: list[tuple[str, str, Any]]
) -> None:
    world, stream = World(StreamStore(redis_client), NumbersEngine()), fresh("stream")
    world.is_talk, scorers = True, [world.scorer]
    qid = await world.ask(stream)
    for what, _, value in [*ops, ("restart", "", 0), ("grow", "", 3)]:
        if what == "grow":
            await world.grow(stream, value, *scorers[1:])
        elif what == "step":
            await scorers[-1].step()
        elif what == "restart":
            scorers.append(world.another())
            scorers[-1].streams.own([stream])
        elif tracked := scorers[-1].streams.tracked.get(stream):
            await scorers[-1].streams.refresh()
            question = tracked.questions[qid]
            question.candidates.extend(i for i in value if i < tracked.cursor.head)
            await _step_to(scorers[-1], tracked, question)
    await drain(scorers[-1])
    await world.assert_equals_batch(stream)
    assert isinstance(world.engine, NumbersEngine)
    assert sum(world.engine.calls) == (await world.store.load(stream)).cursor.head


async def _step_to(scorer: Scorer, tracked: TrackedStream, question: TrackedQuestion) -> None:
    """Score the question's candidates as for a query that waits for it."""
    while question.candidates and (job := question.next_job(tracked.cursor, 8, history=True)):
        segments = await scorer.store.segments_at(job.stream, job.indices)
        step = Step([job], [segments], 1, 1.0)
        await scorer._commit(step, await scorer._submit(step))


@pytest.mark.guarantee("Stream equals batch")
async def test_a_real_model_gives_the_scores_of_the_batch(store: StreamStore, fresh: Fresh) -> None:
    engine = tiny.engine(tiny.model(), batch_tokens=512)
    world, stream = World(store, engine), fresh("stream")
    qid = await world.ask(stream, "which pump?")
    text = "".join(f"pump {i} is {'low' if i % 7 else 'down'}\n" for i in range(60))
    tail, segments = batch(engine, text)
    (result,) = await store.commit(
        [Commit(stream, await store.load(stream), segments, tail, "t/0", 1, 1)]
    )
    assert isinstance(result, Committed)
    state = result.state
    world.scorer.streams.on_commit(stream, state.cursor)
    await world.drain()
    scores = engine.score([(segment.text, "which pump?") for segment in segments])
    assert await world.scores(stream, qid) == pytest.approx(scores, abs=2e-4)


@pytest.mark.guarantee("Exactly-once effect")
async def test_a_refused_range_update_is_planned_again(world: World, fresh: Fresh) -> None:
    stream, other = fresh("stream"), world.another()
    await world.ask(stream)
    await world.grow(stream, 20, other)
    await world.scorer.step()
    await other.step()
    await other.step()
    await world.scorer.step()
    assert stream in world.scorer.streams.stale
    await world.drain()
    await world.assert_equals_batch(stream)


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
    assert world.store.health and world.store.health.ok


@pytest.mark.guarantee("Exactly-once effect")
async def test_an_update_message_that_fails_doubles_nothing(
    redis_client: Redis, fresh: Fresh
) -> None:
    store = StreamStore(redis_client, Retention(4), health=Health())
    world, stream = World(store), fresh("stream")
    qid = await world.ask(stream)
    await world.grow(stream, 7)
    world.store.redis = FailingPublish(redis_client)
    await world.drain()
    assert world.store.redis.failed
    assert await world.range(stream, qid) == ScoredRange(0, 7, 3)


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
