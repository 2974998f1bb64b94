"""StreamRegistry: the questions it reads, the lag it counts, and what retention deleted."""

import asyncio
import math
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.store.state import QuestionRecord, Retention, ScoredRange
from stream_app.store.store import StreamStore
from tests.support.fakes import (
    until,
)
from tests.support.scoring import Fresh, World


@pytest.mark.guarantee("Standing questions")
async def test_a_question_set_while_the_stream_is_read_is_not_missed(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, tracked = fresh("stream"), world.store.questions.tracked
    await world.grow(stream, 3)

    async def slow(name: str) -> Any:
        known = await tracked(name)
        monkeypatch.setattr(world.store.questions, "tracked", tracked)
        await world.ask(stream)
        return known

    monkeypatch.setattr(world.store.questions, "tracked", slow)
    await world.drain()
    await world.assert_equals_batch(stream)


async def test_the_last_read_of_a_stream_is_kept(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, tracked, gate = fresh("stream"), world.store.questions.tracked, asyncio.Event()
    await world.grow(stream, 3)

    async def slow(name: str) -> Any:
        known = await tracked(name)
        monkeypatch.setattr(world.store.questions, "tracked", tracked)
        await gate.wait()
        return known

    monkeypatch.setattr(world.store.questions, "tracked", slow)
    early = asyncio.create_task(
        world.scorer.wait_until_covered(stream, "unknown", time.monotonic() + 60)
    )
    await until(lambda: world.store.questions.tracked is tracked)
    await world.ask(stream)
    later = asyncio.create_task(world.scorer.streams.refresh())
    for _ in range(20):  # time enough for the later reader to be done, if nothing held it back
        await world.store.redis.ping()
    gate.set()
    await asyncio.gather(early, later)
    await world.drain()
    await world.assert_equals_batch(stream)


async def test_a_question_that_ended_is_no_longer_scored(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    qid = await world.ask(stream)
    await world.grow(stream, 20)
    await world.scorer.step()
    await world.store.questions.end_standing(stream)
    await world.drain()
    assert await world.store.scored_range(stream, qid) is None
    assert (world.scorer.streams.lag(), world.scorer.streams.tracked[stream].questions) == (
        0,
        {},
    )


@pytest.mark.guarantee("Standing questions")
async def test_a_question_too_long_for_the_model_is_not_scored(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.ask(stream, "x" * 200)
    await world.grow(stream, 3)
    assert await world.drain() == 0


@pytest.mark.guarantee("Standing questions")
async def test_a_standing_question_that_another_model_scored_is_reissued(
    world: World, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await world.grow(stream, 30)
    await world.store.questions.ask(stream, "another-model", QuestionRecord("q?"))
    world.scorer.streams.own([stream])
    await world.drain()
    assert list(await world.store.questions.load(stream)) == [world.scorer.question_id("q?")]
    assert await world.store.scored_range(stream, "another-model") is None
    await world.assert_equals_batch(stream, "q?")


@pytest.mark.guarantee("Backpressure")
async def test_a_partition_is_throttled_while_too_much_is_unscored(
    store: StreamStore, fresh: Fresh
) -> None:
    stream, lags = fresh("stream"), list[int]()

    def note_lag() -> None:
        lags.append(world.scorer.streams.lag())

    world = World(store, max_lag=3 * 12, on_room=note_lag)
    await world.ask(stream)
    await world.grow(stream, 20)
    await world.scorer.streams.refresh()
    assert world.scorer.streams.lag() == 20
    while world.scorer.streams.lag() > 3:
        assert world.scorer.throttled_partitions() == {"t/0"}
        await world.scorer.step()
        assert lags[-1] == world.scorer.streams.lag()
    assert world.scorer.throttled_partitions() == set()


@pytest.mark.guarantee("Backpressure")
async def test_only_standing_questions_of_owned_streams_count_as_lag(
    store: StreamStore, fresh: Fresh
) -> None:
    world, mine, lost = World(store, max_lag=1), fresh("mine"), fresh("lost")
    await world.ask(mine, "once?", ttl=60)
    for stream in (mine, lost):
        await world.ask(stream)
        await world.grow(stream, 20)
    await world.scorer.streams.refresh()
    assert world.scorer.streams.lag() == 40
    world.scorer.streams.disown([lost, fresh("unheard of")])
    assert world.scorer.streams.lag() == 20
    await world.drain()
    assert world.scorer.throttled_partitions() == set()


@pytest.mark.guarantee("Backpressure")
async def test_lag_counts_for_the_partitions_of_its_stream_only(
    store: StreamStore, fresh: Fresh
) -> None:
    world, hot, slow = World(store, max_lag=3 * 12), fresh("hot"), fresh("slow")
    for stream, segments, partition in ((hot, 20, "t/0"), (slow, 2, "t/1")):
        await world.ask(stream)
        await world.grow(stream, segments, partition=partition)
    await world.scorer.streams.refresh()
    assert world.scorer.throttled_partitions() == {"t/0"}
    await world.grow(slow, 3, partition="t/2")
    assert world.scorer.streams.lag_by_partition() == {"t/0": 20, "t/1": 5, "t/2": 5}, (
        "of both its own"
    )


@pytest.mark.guarantee("Retention")
async def test_segments_deleted_before_they_were_scored_are_skipped(
    redis_client: Redis, fresh: Fresh
) -> None:
    world, stream = World(StreamStore(redis_client, Retention(3))), fresh("stream")
    qid = await world.ask(stream)
    await world.grow(stream, 10)
    await world.drain()
    assert await world.range(stream, qid) == ScoredRange(0, 10, 7)
    scores = await world.scores(stream, qid)
    assert [math.isnan(score) for score in scores] == [True] * 7 + [False] * 3
    view = await world.store.snapshot(stream, qid)
    assert view is not None and {s.index for s, _ in view.top} == {7, 8, 9}
