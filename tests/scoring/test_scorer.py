"""Scorer: its steps overlap, its failures end it, and it publishes what changed."""

import asyncio
import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.state import ScoredRange
from stream_app.store.store import StreamStore
from tests.support.fakes import (
    HashEngine,
    running,
    until,
)
from tests.support.scoring import Fresh, World
from xl3m_core.scoring import Scores


class Overlapping(HashEngine):
    """Completes a step only when its event is set; announces each step that begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Queue[threading.Event]()
        self.loop = asyncio.get_running_loop()
        self.fails = False

    def timed_features(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        ended, scores = threading.Event(), self.features(pairs)
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
async def test_a_step_begins_before_the_last_one_is_written_and_the_result_is_the_same(
    overlap: Overlap,
) -> None:
    world, engine, stream, qid = overlap

    async def all_is_scored() -> bool:
        with suppress(asyncio.QueueEmpty):
            engine.begun.get_nowait().set()
        return await world.range(stream, qid) == ScoredRange(0, 40)

    async with running(world.scorer):
        first = await engine.begun.get()
        second = await engine.begun.get()
        assert (await world.range(stream, qid)).lo == (await world.range(stream, qid)).hi
        assert await world.scorer.run_on_model(lambda: "an answer") == "an answer"
        for ended in (first, second):
            ended.set()
        await until(all_is_scored)
    await world.assert_equals_batch(stream)


@pytest.mark.guarantee("Scheduling")
async def test_a_step_that_fails_ends_scoring_and_the_step_behind_it_is_not_written(
    overlap: Overlap,
) -> None:
    world, engine, stream, qid = overlap
    run = asyncio.create_task(world.scorer.run())
    first, second = await engine.begun.get(), await engine.begun.get()
    engine.fails = True
    first.set()
    with pytest.raises(ZeroDivisionError):
        await run
    second.set()
    scored = await world.range(stream, qid)
    assert scored.lo == scored.hi
    assert await world.scorer.run_on_model(lambda: "still there") == "still there"


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
        await world.scorer.streams.load(stream)
        return done

    monkeypatch.setattr(world.store, "extend_range", reread)
    async with world.store.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(keys.update_channel(stream))
        await world.drain()
        message = await anext(pubsub.listen())
    assert json.loads(message["data"])["range"] == [0, 5]
    await world.assert_equals_batch(stream)


async def test_every_model_call_counts_even_if_it_fails(world: World) -> None:
    before = world.scorer.model_calls
    await world.scorer.run_on_model(lambda: None)
    with pytest.raises(ZeroDivisionError):
        await world.scorer.run_on_model(lambda: 1 / 0)
    assert world.scorer.model_calls == before + 2
