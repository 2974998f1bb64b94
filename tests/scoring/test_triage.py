"""Triage: of a stream faster than the model the most promising is read first, and all in the end.

The fakes' segment number 17 has the word 17, and a batch of theirs is eight segments.
"""

import random
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from stream_app.scoring import triage as triage_module
from stream_app.scoring.jobs import TrackedQuestion, TrackedStream
from stream_app.scoring.pending import PendingSegments
from stream_app.scoring.scorer import Scorer
from stream_app.scoring.triage import picks
from stream_app.store.state import Cursor, QuestionRecord, Retention, ScoredRange
from stream_app.store.store import StreamStore
from tests.support.fakes import PLENTY, HashEngine, running, until
from tests.support.scoring import Fresh, World
from xl3m_core.scoring import Scores

BACKLOG = 300


@pytest.fixture
def world(store: StreamStore) -> World:
    """A scorer in triage."""
    return World(store, triage=True)


def scored(world: World, question: str = "") -> list[int]:
    """The numbers of the segments that the model has read for the question, in its order."""
    assert isinstance(world.engine, HashEngine)
    pairs = world.engine.scored
    return [int(text.strip(".\n").split("\n")[-1].strip(".")) for text, q in pairs if question in q]


@pytest.mark.guarantee("Triage")
async def test_evidence_overtakes_a_long_backlog(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.ask(stream, "where is 17?")
    await world.grow(stream, BACKLOG)
    await world.scorer.step()
    assert 17 in scored(world)
    assert len(scored(world)) <= 8


@pytest.mark.guarantee("Triage")
async def test_while_a_flood_goes_on_each_evidence_is_read_in_the_next_step(
    world: World, fresh: Fresh
) -> None:
    stream, rng = fresh("stream"), random.Random(7)
    planted = [80 * round_ + rng.randrange(75) for round_ in rng.sample(range(2, 20), 6)]
    await world.ask(stream, " ".join(map(str, planted)))
    for round_ in range(1, 21):
        await world.grow(stream, 80)
        await world.scorer.step()
        assert {i for i in planted if i < 80 * round_} <= {*scored(world)}
    assert len(scored(world)) <= 20 * 8


@pytest.mark.guarantee("Triage")
async def test_the_newest_come_first_where_no_words_help(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.ask(stream, "q?")
    await world.grow(stream, BACKLOG)
    await world.scorer.step()
    read = scored(world)
    assert read == [*range(BACKLOG - len(read), BACKLOG)]


@pytest.mark.guarantee("Triage")
async def test_quiet_times_catch_up_and_nothing_is_read_twice(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    for number in (5, 250):
        await world.ask(stream, f"{number}?")
    for _ in range(4):
        await world.grow(stream, BACKLOG // 4)
        await world.scorer.step()
    await world.drain()
    for number in (5, 250):
        assert len(scored(world, f"{number}?")) == BACKLOG
        await world.assert_equals_batch(stream, f"{number}?")
    assert world.scorer.streams.lag() == world.scorer.streams.totals.unread == 0
    questions = world.scorer.streams.tracked[stream].questions.values()
    assert not any(question.pending.matched or len(question.pending) for question in questions)


@pytest.mark.guarantee("Triage")
async def test_questions_share_what_is_read(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    for question in ("17?", "170?"):
        await world.ask(stream, question)
    await world.grow(stream, BACKLOG)
    await world.scorer.step()
    assert {17, 170} <= {*scored(world, "17?")}
    assert scored(world, "17?") == scored(world, "170?")


@pytest.mark.guarantee("Triage")
async def test_a_stream_that_is_hardly_behind_is_read_in_its_order(
    world: World, fresh: Fresh
) -> None:
    stream = fresh("stream")
    qid = await world.ask(stream, "9?")
    await world.grow(stream, 10)
    await world.scorer.step()
    done = await world.range(stream, qid)
    assert scored(world) == [*range(done.hi)]
    assert not world.scorer.streams.tracked[stream].questions[qid].pending.matched


@pytest.mark.guarantee("Triage")
@pytest.mark.parametrize("triage", [True, False])
async def test_ingest_waits_for_the_model_only_if_it_is_to(
    triage: bool, store: StreamStore, fresh: Fresh
) -> None:
    world, stream = World(store, max_lag=120, triage=triage), fresh("stream")
    await world.ask(stream)
    await world.grow(stream, BACKLOG)
    await world.scorer.step()
    assert world.scorer.throttled_partitions() == (set() if triage else {"t/0"})


@pytest.mark.guarantee("Triage")
async def test_the_next_owner_finds_what_is_promising(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    qid = await world.ask(stream, "17?")
    await world.grow(stream, BACKLOG)
    other = world.another()
    other.streams.own([stream])
    await other.step()
    assert 17 in scored(world)
    assert len(scored(world)) <= 8
    assert other.streams.tracked[stream].questions[qid].pending.matched


@pytest.mark.guarantee("Triage")
async def test_what_is_deleted_before_it_is_read_counts_as_skipped(
    redis_client: Redis, fresh: Fresh
) -> None:
    world, stream = World(StreamStore(redis_client, Retention(90)), triage=True), fresh("stream")
    qid = await world.ask(stream)
    for _ in range(5):
        await world.grow(stream, 60)
        await world.scorer.step()
    await world.drain()
    done = await world.range(stream, qid)
    read = len(scored(world))
    assert (done.lo, done.hi) == (0, BACKLOG)
    assert done.skipped == BACKLOG - read
    assert world.scorer.streams.lag() == 0


@pytest.mark.guarantee("Bounded memory")
async def test_what_is_matched_for_a_step_is_bounded(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triage_module, "MATCHES_PER_STEP", 50)
    stream = fresh("stream")
    qid = await world.ask(stream, "20?")
    await world.grow(stream, BACKLOG)
    await world.scorer.step()
    pending = world.scorer.streams.tracked[stream].questions[qid].pending
    assert [*pending.matched] == [*range(BACKLOG - 50, BACKLOG)], "the newest first"
    for _ in range(5):
        await world.scorer.step()
    assert 20 in scored(world)


@pytest.mark.guarantee("Bounded memory")
def test_the_most_promising_and_newest_are_kept() -> None:
    pending = PendingSegments()
    pending.add([(1, 0.5), (2, 0.0), (3, 0.5), (4, 0.25), (5, 0.5), (6, 1.0)], most=3)
    assert [*pending.best(lambda _: True)] == [6, 5, 3]
    assert [*pending.matched] == [1, 2, 3, 4, 5, 6]
    assert [*pending.best(lambda index: index != 6)] == [5, 3]
    assert len(pending) == 2, "what is read is forgotten"


class Slow(HashEngine):
    """Takes ten seconds for each step, it says."""

    def timed_features(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        return Scores(self.features(pairs), 10.0)


@pytest.mark.guarantee("Triage")
async def test_a_slow_model_is_told_of_the_newest_at_each_step_and_reads_all(
    store: StreamStore, fresh: Fresh
) -> None:
    world, stream = World(store, Slow(), triage=True), fresh("stream")
    world.scorer = Scorer(world.engine, store, PLENTY, 0.1, triage=True)
    qid = await world.ask(stream, "17?")
    await world.grow(stream, BACKLOG)

    async def is_read() -> bool:
        return (await world.range(stream, qid)).hi == BACKLOG

    async with running(world.scorer):
        await until(is_read)
    assert len(scored(world)) == BACKLOG
    await world.assert_equals_batch(stream, "17?")


def question(head: int, scores: Sequence[tuple[int, float]]) -> TrackedQuestion:
    made = TrackedQuestion("s", f"{head}{scores}", QuestionRecord("q?"), ScoredRange(0, 0))
    made.pending.add(scores)
    return made


def test_each_question_has_its_turn_and_the_newest_too() -> None:
    first = question(0, [(i, 1.0) for i in range(40)])
    second = question(1, [(i, 0.1) for i in range(40, 80)])
    stream = TrackedStream(Cursor(head=100), questions={"1": first, "2": second})
    picked = picks(stream, [first, second], 40)
    assert len(picked) == 40
    groups = [sum(lo <= i < hi for i in picked) for lo, hi in [(0, 40), (40, 80), (80, 100)]]
    assert groups == [15, 15, 10]
