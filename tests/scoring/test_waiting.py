"""A query waits until its question's range covers the log, for any worker, up to a deadline."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from stream_app.scoring.prefilter import Prefilter
from stream_app.scoring.search_ranking import BlockHits, SearchRanking
from stream_app.store.state import ScoredRange
from tests.support.fakes import (
    HashEngine,
    running,
    until,
)
from tests.support.scoring import Fresh, World, drain


@pytest.mark.guarantee("Coverage")
async def test_a_query_returns_at_its_deadline_with_what_there_is(
    world: World, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await world.grow(stream, 20)
    qid = await world.ask(stream, ttl=60)
    await world.scorer.wait_until_covered(stream, qid, time.monotonic() + 0)
    assert await world.range(stream, qid) == ScoredRange(20, 20)
    assert world.scorer.waiters.queue == []


@pytest.mark.guarantee("Coverage")
async def test_a_query_returns_when_its_question_is_covered(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.grow(stream, 100)
    qid = await world.ask(stream, ttl=60)
    async with running(world.scorer):
        await world.scorer.wait_until_covered(stream, qid, time.monotonic() + 60)
    await world.assert_equals_batch(stream)
    await world.scorer.wait_until_covered(stream, qid, time.monotonic() + 60)


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
    assert (other.streams.tracked, other.streams.lagging, other.waiters.queue) == ({}, {}, [])


async def test_queries_that_come_and_go_do_not_disturb_each_other(
    world: World, fresh: Fresh
) -> None:
    stream, other = fresh("stream"), world.another()
    await world.grow(stream, 30)
    qid = await world.ask(stream, ttl=60)

    async def wait_briefly(delay: int) -> None:
        for _ in range(delay):
            await asyncio.sleep(0)
        await other.wait_until_covered(stream, qid, time.monotonic() + 0)

    await asyncio.gather(*map(wait_briefly, range(40)))
    assert (other.streams.tracked, other.waiters.queue) == ({}, [])


@pytest.mark.guarantee("Coverage")
async def test_a_query_goes_on_though_its_stream_changes_hands(world: World, fresh: Fresh) -> None:
    stream, other = fresh("stream"), world.another()
    await world.grow(stream, 30)
    qid = await world.ask(stream, ttl=60)
    covering = asyncio.create_task(other.wait_until_covered(stream, qid, time.monotonic() + 60))
    await until(lambda: other.waiters.queue and other.waiters.queue[0].head)
    for change in (other.streams.own, other.streams.disown):
        change([stream])
        other.waiters.release()
        await other.step()
        assert not covering.done()
    await drain(other)
    await covering
    await world.assert_equals_batch(stream)
    assert other.streams.tracked == {}


async def test_a_query_whose_question_ends_is_released(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.grow(stream, 30)
    qid = await world.ask(stream)
    covering = asyncio.create_task(
        world.scorer.wait_until_covered(stream, qid, time.monotonic() + 60)
    )
    await until(lambda: world.scorer.waiters.queue and world.scorer.waiters.queue[0].head)
    await world.store.questions.end_standing(stream)
    world.scorer.streams.on_questions_changed(stream)
    await world.drain()
    await covering


@pytest.mark.guarantee("Coverage")
async def test_an_ad_hoc_question_is_scored_for_its_query_only(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.grow(stream, 5)
    qid = await world.ask(stream, ttl=60)
    assert await world.drain() == 0
    assert await world.range(stream, qid) == ScoredRange(5, 5)


class FixedPrefilter(Prefilter):
    """A prefilter that finds these segments, the best first."""

    def __init__(self, *found: int) -> None:
        self.found = found

    async def search(self, *_: Any) -> AsyncIterator[SearchRanking]:
        ranking, count = SearchRanking(len(self.found)), len(self.found)
        weights = np.arange(count, 0, -1.0)[:, None]
        ranking.add(BlockHits(9 * count, np.array([count]), np.array(self.found), weights, False))
        yield ranking


async def waiting_with_candidates(
    world: World, stream: str, qid: str, *candidates: int
) -> "asyncio.Task[None]":
    """A query that waits, once it has these candidates."""
    world.scorer.prefilter.prefilter = FixedPrefilter(*candidates)
    covering = asyncio.create_task(
        world.scorer.wait_until_covered(stream, qid, time.monotonic() + 60)
    )
    tracked = world.scorer.streams.tracked[stream]
    await until(lambda: qid in tracked.questions and tracked.questions[qid].candidates)
    return covering


@pytest.mark.guarantee("Coverage")
async def test_candidates_are_scored_first_and_then_everything_else(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.scoring.prefilter.PREFILTER_SECONDS", 0.1)
    monkeypatch.setattr("stream_app.scoring.candidates.PER_K", 1)
    stream = fresh("stream")
    await world.grow(stream, 100)
    qid = await world.ask(stream, ttl=60)
    covering = await waiting_with_candidates(world, stream, qid, 7, 98, 23)
    await world.scorer.step()
    view = await world.store.snapshot(stream, qid)
    assert view and {7, 23, 98} <= {segment.index for segment, _ in view.top}
    await world.drain()
    await covering
    await world.assert_equals_batch(stream)


@pytest.mark.guarantee("Coverage")
async def test_segments_that_came_after_the_question_are_prefiltered_too(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.scoring.prefilter.PREFILTER_SECONDS", 0.1)
    monkeypatch.setattr("stream_app.scoring.candidates.PER_K", 1)
    stream = fresh("stream")
    await world.grow(stream, 60)
    assert isinstance(world.engine, HashEngine)
    qid = await world.ask(stream, ttl=60)
    for index in (31, 131):
        covering = await waiting_with_candidates(world, stream, qid, index)
        before = len(world.engine.scored)
        await world.scorer.step()
        (candidate,) = await world.store.segments(stream, index, index + 1)
        assert candidate.text in [text for text, _ in world.engine.scored[before:]]
        await world.drain()
        await covering
        await world.grow(stream, 80)
