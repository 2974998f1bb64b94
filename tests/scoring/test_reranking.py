"""Another measure or k ranks the rows there are; the model reads only what it never read so."""

from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from stream_app.scoring import reranking
from stream_app.store.state import Retention, ScoredRange
from stream_app.store.store import StreamStore
from tests.support.numbers import NumbersEngine
from tests.support.scoring import World
from xl3m_core import Measure

Fresh = Callable[[str], str]


async def changed(world: World, stream: str, engine: NumbersEngine) -> World:
    """A worker with another engine that takes the stream over and scores what there is to."""
    other = World(world.store, engine)
    other.text, other.is_talk = world.text, world.is_talk
    other.scorer.streams.own([stream])
    await other.drain()
    return other


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows a command."""
    monkeypatch.setattr(reranking, "ROWS_AT_ONCE", 5)


@pytest.mark.guarantee("Standing questions")
@pytest.mark.parametrize(
    ("measure", "k"), [("entropy", 3), ("likelihood", 3), ("hybrid", 2), ("fused", 5)]
)
@pytest.mark.parametrize("is_talk", [False, True])
async def test_another_measure_or_k_makes_no_model_call(
    store: StreamStore, fresh: Fresh, measure: Measure, k: int, is_talk: bool
) -> None:
    world, stream = World(store, NumbersEngine("fused")), fresh("stream")
    world.is_talk = is_talk
    await world.grow(stream, 8)
    old = await world.ask(stream)
    await world.grow(stream, 9)
    await world.drain()
    engine = NumbersEngine(measure, k)
    other = await changed(world, stream, engine)
    await other.assert_equals_batch(stream)
    assert not engine.calls
    assert list(await store.questions.load(stream)) == [other.scorer.question_id("q?")]
    assert await store.scored_range(stream, old) is None
    back = await changed(other, stream, again := NumbersEngine("fused"))
    await back.assert_equals_batch(stream)
    assert not again.calls, "the raw numbers are still those of the first measure"


@pytest.mark.guarantee("Standing questions")
async def test_rows_without_the_numbers_of_a_measure_are_read_by_the_model(
    store: StreamStore, fresh: Fresh
) -> None:
    world, stream = World(store, NumbersEngine("entropy")), fresh("stream")
    await world.ask(stream)
    await world.grow(stream, 12)
    await world.drain()
    other = await changed(world, stream, engine := NumbersEngine("likelihood"))
    await other.assert_equals_batch(stream)
    assert sum(engine.calls) == 12


@pytest.mark.guarantee("Standing questions")
async def test_a_change_of_measure_keeps_gaps_and_an_interrupted_one_goes_on(
    redis_client: Redis, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = StreamStore(redis_client, Retention(40))
    world, stream = World(store, NumbersEngine("fused")), fresh("stream")
    await world.grow(stream, 30)
    qid = await world.ask(stream)
    await world.scorer.streams.load(stream)
    tracked = world.scorer.streams.tracked[stream]
    tracked.questions[qid].candidates.extend([3, 4, 11, 20, 21, 22, 29, 28])
    await world.scorer.step()
    scored = await world.range(stream, qid)
    assert (scored.lo, scored.hi, scored.read) == (28, 30, 8)
    engine = NumbersEngine("entropy")
    with monkeypatch.context() as patch:
        patch.setattr(StreamStore, "extend_range", _interrupted)
        with pytest.raises(InterruptedError):
            await changed(world, stream, engine)
    other = await changed(world, stream, engine)
    assert sum(engine.calls) == 22, "what was read is not read again"
    assert await other.range(stream, other.scorer.question_id("q?")) == ScoredRange(0, 30)
    await other.assert_equals_batch(stream)


async def _interrupted(*args: object) -> None:
    raise InterruptedError
