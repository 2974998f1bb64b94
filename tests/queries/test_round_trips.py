"""Round trips to Redis between the start of a query and generation: one for a covered question.

A round trip is one message on a connection, however many commands a pipeline or a script puts in
it. Lease, streamed text and answer of the pub/sub server come on top, as does what the scorer reads
and writes while a query waits for it.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from stream_app.requests import Query
from tests.queries.test_answering import World, lines, rests_on
from tests.support.fakes import HashEngine

Fresh = Callable[[str], str]


class Counter:
    """Messages sent to Redis, and how many had been sent when generation began."""

    def __init__(self) -> None:
        self.sent = 0
        self.at_generation = -1


class CountedEngine(HashEngine):
    """Notes when generation begins."""

    counter: Counter

    def answer(self, *args: Any, **kwargs: Any) -> Any:
        self.counter.at_generation = self.counter.sent
        return super().answer(*args, **kwargs)


@pytest.fixture
async def counted(
    redis_client: Redis, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[World, Counter]]:
    """A worker whose connection is open and whose scripts Redis knows, and its counter."""
    engine, counter = CountedEngine(), Counter()
    engine.counter = counter
    world, stream = World(redis_client, engine), fresh("stream")
    await world.read(stream, lines(9))
    await world.ask(stream, "first?")
    send = AbstractConnection.send_packed_command

    async def counting(self: AbstractConnection, *args: Any, **kwargs: Any) -> Any:
        counter.sent += 1
        return await send(self, *args, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counting)
    yield world, counter


async def trips(world: World, counter: Counter, query: Query) -> int:
    """How many round trips came before generation; the scorer does not run."""
    counter.sent, counter.at_generation = 0, -1
    answer = await world.answering.answer(query)
    assert answer.error is None and counter.at_generation >= 0
    return counter.at_generation


async def score_all(world: World) -> None:
    while await world.scorer.step():
        pass


@pytest.mark.parametrize("question", [None, "standing?"])
async def test_a_covered_standing_question_costs_one_round_trip(
    question: str | None, counted: tuple[World, Counter], fresh: Fresh
) -> None:
    (world, counter), stream = counted, fresh("stream")
    await world.set(stream, "older?", set_at=1.0)
    await world.set(stream, "standing?", set_at=2.0)
    await world.read(stream, lines(40))
    await score_all(world)
    query = Query("1", stream, question, 0)
    assert await trips(world, counter, query) == 1
    answer = await world.answering.answer(query)
    assert (answer.question, answer.coverage) == ("standing?", 1.0)
    assert rests_on(answer) == world.best(lines(40), "standing?")
    assert list(answer.timings) == ["cover", "read", "tail", "generate"]
    assert answer.timings["cover"] == 0


async def test_a_covered_ad_hoc_question_costs_another_that_renews_it(
    counted: tuple[World, Counter], fresh: Fresh
) -> None:
    (world, counter), stream = counted, fresh("stream")
    await world.read(stream, lines(40))
    await world.ask(stream, "ad hoc?")
    qid = world.scorer.question_id("ad hoc?")
    before = (await world.store.questions.load(stream))[qid].expires_at
    assert await trips(world, counter, Query("1", stream, "ad hoc?", 0)) == 2
    assert (await world.store.questions.load(stream))[qid].expires_at > before


@pytest.mark.parametrize("count", [1, 40])
async def test_an_unknown_question_costs_four_beside_its_scoring(
    count: int, counted: tuple[World, Counter], fresh: Fresh
) -> None:
    """Reading, registering the question with its range, tracking it, and reading again."""
    (world, counter), stream = counted, fresh("stream")
    await world.set(stream, "standing?")
    await world.read(stream, lines(count))
    assert await trips(world, counter, Query("1", stream, "unknown?", 0)) <= 4
    assert await trips(world, counter, Query("2", stream, None, 0)) <= 4  # not scored yet


async def test_what_was_read_since_the_last_step_is_scored_before_the_answer(
    counted: tuple[World, Counter], fresh: Fresh
) -> None:
    (world, _), stream = counted, fresh("stream")
    await world.set(stream, "standing?")
    await world.read(stream, lines(20))
    await score_all(world)
    await world.read(stream, lines(20), offset=2)
    answer = await world.ask(stream)
    assert answer.coverage == 1.0 and answer.timings["cover"] > 0
    assert rests_on(answer) == world.best(lines(20) * 2, "standing?")


async def test_a_question_of_another_model_is_answered_by_this_one(
    counted: tuple[World, Counter], fresh: Fresh
) -> None:
    """Its top-k has the other model's scores; this one's are its own."""
    (world, _), stream = counted, fresh("stream")
    other = World(world.store.redis, HashEngine())
    other.engine.model.fingerprint = "another model"
    await other.set(stream, "q?")
    await other.read(stream, lines(20))
    await score_all(other)
    answer = await world.ask(stream)
    assert (answer.question, answer.coverage) == ("q?", 1.0)
    assert rests_on(answer) == world.best(lines(20), "q?")
    assert world.scorer.question_id("q?") in await world.store.questions.load(stream)
