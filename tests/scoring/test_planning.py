"""What a step scores first: queries, then live edges, then history; streams share it equally."""

import asyncio
import math
import time

import pytest
from redis.asyncio import Redis

from stream_app.store.state import Retention, ScoredRange
from stream_app.store.store import StreamStore
from tests.support.fakes import (
    HashEngine,
    until,
)
from tests.support.scoring import Fresh, World


@pytest.mark.guarantee("Scheduling")
async def test_the_live_edge_comes_before_the_history(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.grow(stream, 20)
    qid = await world.ask(stream)
    await world.grow(stream, 3)
    await world.scorer.step()
    assert await world.range(stream, qid) == ScoredRange(15, 23)
    await world.grow(stream, 9)
    await world.scorer.step()
    assert await world.range(stream, qid) == ScoredRange(15, 31)
    await world.drain()
    await world.assert_equals_batch(stream)


@pytest.mark.guarantee("Coverage")
async def test_a_late_question_is_scored_back_to_the_first_retained_segment(
    redis_client: Redis, fresh: Fresh
) -> None:
    world, stream = World(StreamStore(redis_client, Retention(9))), fresh("stream")
    await world.grow(stream, 30)
    qid = await world.ask(stream)
    await world.drain()
    assert await world.range(stream, qid) == ScoredRange(21, 30)
    assert not any(map(math.isnan, await world.scores(stream, qid)))


@pytest.mark.guarantee("Scheduling")
async def test_what_a_query_waits_for_comes_first(world: World, fresh: Fresh) -> None:
    lagging, waited_for = fresh("stream"), fresh("stream")
    await world.grow(lagging, 40)
    await world.grow(waited_for, 8)
    standing = await world.ask(lagging)
    ad_hoc = await world.ask(waited_for, "now?", ttl=60)
    covering = asyncio.create_task(
        world.scorer.wait_until_covered(waited_for, ad_hoc, time.monotonic() + 60)
    )
    await until(lambda: world.scorer.waiters.queue and world.scorer.waiters.queue[0].head)
    await world.scorer.step()
    assert await world.range(waited_for, ad_hoc) == ScoredRange(3, 8)  # three quarters of a step
    assert await world.range(lagging, standing) == ScoredRange(38, 40)
    await world.drain()
    await covering
    assert await world.range(waited_for, ad_hoc) == ScoredRange(0, 8)


@pytest.mark.guarantee("Scheduling")
async def test_a_small_query_does_not_wait_for_a_large_one(world: World, fresh: Fresh) -> None:
    large, small = fresh("stream"), fresh("stream")
    await world.grow(large, 200)
    await world.grow(small, 8)
    deadline = time.monotonic() + 60
    questions = [(stream, await world.ask(stream, "now?", ttl=60)) for stream in (large, small)]
    first, second = [
        asyncio.create_task(world.scorer.wait_until_covered(*question, deadline))
        for question in questions
    ]
    await until(lambda: len(world.scorer.waiters.queue) == 2 and world.scorer.waiters.queue[1].head)
    for _ in range(3):
        await world.scorer.step()
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
    await world.scorer.streams.refresh()
    async with asyncio.timeout(20):
        assert await world.drain() == 1
    assert not world.scorer.streams.lagging


@pytest.mark.guarantee("Scheduling")
async def test_streams_share_a_step_equally(world: World, fresh: Fresh) -> None:
    streams = [fresh("stream") for _ in range(4)]
    qids = [await world.ask(stream) for stream in streams]
    for stream in streams:
        await world.grow(stream, 10)
    await world.scorer.step()
    ranges = [await world.range(s, q) for s, q in zip(streams, qids, strict=True)]
    assert ranges == [ScoredRange(0, 2)] * 4


@pytest.mark.guarantee("Scheduling")
async def test_more_streams_than_a_step_has_room_for_take_turns(world: World, fresh: Fresh) -> None:
    streams = [fresh("stream") for _ in range(20)]
    qids = [await world.ask(stream) for stream in streams]
    for stream in streams:
        await world.grow(stream, 30)
    for _ in range(20):
        await world.scorer.step()
    done = [(await world.range(s, q)).hi for s, q in zip(streams, qids, strict=True)]
    assert done == [8] * 20


async def test_a_step_is_one_batch_of_the_model(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.ask(stream, "one?")
    await world.ask(stream, "two?")
    await world.grow(stream, 50)
    await world.scorer.step()
    assert isinstance(world.engine, HashEngine)
    assert len(world.engine.scored) == 8
