"""Answers use the segments that an offline run would choose, or give the reason for an error."""

import json
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.queries.answering import Answering
from stream_app.queries.prefetch import RECENT_QUESTIONS, PromptPrefetcher
from stream_app.requests import Query
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.state import Commit, Committed, QuestionRecord, Retention
from stream_app.store.store import StreamStore
from tests.support import tiny
from tests.support.fakes import PLENTY, HashEngine, best, on_redis, running
from tests.support.numbers import TALK, NumbersEngine
from xl3m_core import XL3M, Answer, Engine, Tail

Fresh = Callable[[str], str]
KEYS = ["question", "answer", "certainty", "grounded", "coverage", "as_of", "evidence", "timings"]
EVIDENCE = {"stream", "index", "score", "start", "end", "text", "start_ms", "end_ms"}


class World:
    """A worker without Kafka: streams are written and questions set directly."""

    def __init__(
        self, redis: Redis, engine: Engine | None = None, retention_segments: int = PLENTY
    ):
        self.engine = engine or HashEngine()
        self.store = StreamStore(redis, Retention(retention_segments))
        self.scorer = Scorer(
            self.engine,
            self.store,
            PLENTY,
            on_change=lambda stream, qid: self.prefetcher.mark_stale(stream, qid),
        )
        settings = Settings(adhoc_ttl_seconds=100)
        self.prefetcher = PromptPrefetcher(self.engine, self.store, self.scorer)
        self.answering = Answering(settings, self.engine, self.store, self.scorer, self.prefetcher)

    async def read(self, stream: str, text: str, offset: int = 1) -> None:
        """Write the text as the stream's next event."""
        base = await self.store.load(stream)
        tail, new = self.engine.segmenter().push(base.tail, text, 5000)
        commit = Commit(stream, base, new, tail, "t/0", 1, offset)
        (result,) = await self.store.commit([commit])
        assert isinstance(result, Committed)
        state = result.state
        self.scorer.streams.on_commit(stream, state.cursor)

    async def set(self, stream: str, question: str, set_at: float = 1.0) -> str:
        """Set a standing question; returns its id."""
        qid = self.scorer.question_id(question)
        await self.store.questions.ask(stream, qid, QuestionRecord(question, set_at=set_at))
        self.scorer.streams.on_questions_changed(stream)
        return qid

    async def ask(self, stream: str, question: str | None = None, deadline: float = 30) -> Answer:
        """Answer a query while the scorer runs."""
        async with running(self.scorer):
            return await self.answering.answer(Query("1", stream, question, deadline))

    def best(self, text: str, question: str) -> list[tuple[int, float]]:
        """The top-k of the whole text with its tail, as (index, score) in the order of the text."""
        segmenter = self.engine.segmenter()
        tail, segments = segmenter.push(Tail(), text)
        return sorted(best(self.engine, segments + segmenter.flush(tail), question))


@pytest.fixture
def world(redis_client: Redis) -> World:
    """A worker with a cheap engine."""
    return World(redis_client)


def lines(count: int) -> str:
    return "".join(f"line {i}\n" for i in range(count))


def rests_on(answer: Answer) -> list[tuple[int, float]]:
    return [(evidence.index, evidence.score) for evidence in answer.evidence]


@pytest.mark.guarantee("Stream equals batch")
@on_redis
@given(st.integers(1, 60), st.booleans(), st.text("ab \n", max_size=30))
async def test_any_question_rests_on_what_the_offline_run_chooses(
    redis_client: Redis, fresh: Fresh, count: int, is_standing: bool, rest: str
) -> None:
    world, stream, text = World(redis_client), fresh("stream"), lines(count) + rest
    if is_standing:
        await world.set(stream, "q?")
    await world.read(stream, text)
    answer = await world.ask(stream, None if is_standing else "q?")
    assert (answer.question, answer.coverage, answer.error) == ("q?", 1.0, None)
    assert rests_on(answer) == world.best(text, "q?")


@pytest.mark.guarantee("Stream equals batch")
@on_redis
@given(st.integers(1, 60), st.booleans(), st.text("ab \n", max_size=30))
async def test_talk_is_ranked_by_means_over_neighbours_up_to_its_tail(
    redis_client: Redis, fresh: Fresh, count: int, is_standing: bool, rest: str
) -> None:
    world, stream = World(redis_client, NumbersEngine()), fresh("stream")
    text = lines(count).translate(TALK) + rest
    if is_standing:
        await world.set(stream, "q?")
    await world.read(stream, text)
    answer = await world.ask(stream, None if is_standing else "q?")
    assert rests_on(answer) == world.best(text, "q?")


@pytest.mark.guarantee("Coverage")
async def test_an_answer_from_a_part_of_talk_ranks_what_is_read(
    redis_client: Redis, fresh: Fresh
) -> None:
    """Its segments have neighbours that are not read: the mean is over those that are."""
    world, stream = World(redis_client, NumbersEngine()), fresh("stream")
    text = lines(60).translate(TALK)
    await world.set(stream, "q?")
    await world.read(stream, text)
    await world.scorer.step()
    snapshot = await world.store.snapshot(stream, world.scorer.question_id("q?"))
    assert snapshot is not None and snapshot.scored_range.lo == 0
    read, head = snapshot.scored_range.hi, snapshot.state.cursor.head
    assert 5 < read < head - 5
    answer = await world.answering.answer(Query("1", stream, None, 0))
    tail, segments = world.engine.segmenter().push(Tail(), text)
    known = [*segments[:read], *world.engine.segmenter().flush(tail)]
    assert rests_on(answer) == sorted(best(world.engine, known, "q?"))
    assert answer.coverage == pytest.approx(len(known) / (head + len(known) - read))


@pytest.mark.guarantee("Stream equals batch")
async def test_the_answer_is_that_of_the_whole_method_offline(
    redis_client: Redis, fresh: Fresh
) -> None:
    engine = tiny.engine(tiny.model(), answer_tokens=8)
    world, stream = World(redis_client, engine), fresh("stream")
    text = "".join(f"pump {i} is {'low' if i % 7 else 'down'}\n" for i in range(40))
    await world.read(stream, text)
    answer, offline = await world.ask(stream, "which?"), XL3M(engine).answer(text, "which?")
    assert answer.answer == offline.answer
    assert answer.certainty == pytest.approx(offline.certainty, abs=1e-3)
    assert [e.text for e in answer.evidence] == [e.text for e in offline.evidence]


async def test_a_stream_of_a_single_unfinished_line_is_answered_from(
    world: World, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await world.read(stream, "one")
    answer = await world.ask(stream, "q?")
    assert [(e.text, e.start, e.end) for e in answer.evidence] == [("one", 0, 3)]
    assert answer.coverage == 1.0


@pytest.mark.guarantee("Answer contents")
async def test_the_prompt_of_a_recent_question_is_prefilled_when_its_segments_change(
    redis_client: Redis, fresh: Fresh
) -> None:
    engine = tiny.engine(tiny.model("qwen2"), answer_tokens=8, answer="free")
    world, stream = World(redis_client, engine), fresh("stream")
    await world.set(stream, "which?")
    text = "".join(f"pump {i} is {'low' if i % 7 else 'down'}\n" for i in range(40))
    await world.read(stream, text[:60])
    await world.ask(stream)
    await world.read(stream, text[60:], offset=2)
    while await world.scorer.step():
        pass
    assert world.prefetcher.stale
    await world.prefetcher.prefetch()
    read, hook = (
        list[int](),
        engine.model.model.register_forward_pre_hook(
            lambda _, args, inputs: read.append(inputs["input_ids"].shape[1]), with_kwargs=True
        ),
    )
    answer = await world.ask(stream)
    hook.remove()
    rows = [size for size in read if size > 1]  # of the tail that is scored, and the prompt
    assert answer.answer == XL3M(engine).answer(text, "which?").answer
    assert sum(rows) < len(engine.model.prompt("".join(e.text for e in answer.evidence)))


async def test_the_prompt_of_a_question_that_was_not_asked_is_not_prefilled(
    world: World, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await world.set(stream, "q?")
    await world.read(stream, lines(40))
    while await world.scorer.step():
        pass
    assert not world.prefetcher.stale
    for i in range(100):
        world.prefetcher.note_query(stream, f"{i}", "q?")
    assert len(world.prefetcher.recent) == RECENT_QUESTIONS


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.guarantee("Answer contents")
async def test_an_unknown_stream_is_refused(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    answer = await world.ask(stream, "q?")
    assert answer.error is not None and repr(stream) in answer.error
    assert (answer.question, answer.answer, answer.evidence) == ("q?", "", ())
    await world.set(stream, "q?")
    assert (await world.ask(stream)).error == answer.error


@pytest.mark.guarantee("Answer contents")
async def test_an_empty_stream_is_refused(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.read(stream, "")
    answer = await world.ask(stream, "q?")
    assert answer.error is not None and "empty" in answer.error


@pytest.mark.guarantee("Answer contents")
async def test_a_query_without_any_question_is_refused(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.read(stream, lines(3))
    await world.ask(stream, "ad hoc?")
    answer = await world.ask(stream)
    assert answer.error is not None and "no standing question" in answer.error


@pytest.mark.guarantee("Answer contents")
async def test_a_question_too_long_is_refused_with_the_numbers(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.read(stream, lines(3))
    answer = await world.ask(stream, "x" * 100)
    assert answer.error is not None
    assert "takes 107 tokens" in answer.error and "40 of the window's 192" in answer.error
    assert await world.store.questions.load(stream) == {}


@pytest.mark.guarantee("Answer contents")
async def test_a_question_that_was_ended_meanwhile_is_refused(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, wait = fresh("stream"), world.scorer.wait_until_covered
    await world.set(stream, "q?")
    await world.read(stream, lines(3))

    async def ending(*args: Any) -> None:
        await wait(*args)
        await world.store.questions.end_standing(stream)

    monkeypatch.setattr(world.scorer, "wait_until_covered", ending)
    answer = await world.ask(stream)
    assert answer.error is not None and "ended" in answer.error


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize("step", ["features", "answer"])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no memory"), IndexError("no such place"), ValueError("other")]
)
async def test_a_model_that_fails_is_an_answer_and_the_next_query_is_answered(
    error: Exception, step: str, world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, calls = fresh("stream"), list[Any]()
    await world.set(stream, "q?")
    await world.read(stream, lines(3))
    await world.ask(stream)

    def fails(*args: Any) -> Any:
        calls.append(args)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(world.engine, step, fails)
        answer = await world.ask(stream)
    assert calls and answer.error == f"the model failed: {error}"
    assert (answer.answer, answer.evidence) == ("", ())
    assert (await world.ask(stream)).error is None


# -- what an answer says about itself ------------------------------------------------------------


@pytest.mark.guarantee("Answer contents")
async def test_the_form_of_an_answer(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.read(stream, lines(9), offset=12)
    plain = (await world.ask(stream, "q?")).to_dict()
    assert list(plain) == KEYS
    assert (plain["question"], plain["certainty"]) == ("q?", -0.5)
    assert plain["as_of"] == {"t/0": 12}
    assert plain["evidence"] and all(set(e) == EVIDENCE for e in plain["evidence"])
    assert {e["stream"] for e in plain["evidence"]} == {stream}
    assert all(lines(9)[e["start"] : e["end"]] == e["text"] for e in plain["evidence"])
    assert list(plain["timings"]) == ["cover", "read", "tail", "generate"]
    assert json.loads(json.dumps(plain)) == msgpack.unpackb(msgpack.packb(plain)) == plain


@pytest.mark.guarantee("Answer contents")
async def test_a_refusal_has_the_same_form_and_an_error(world: World, fresh: Fresh) -> None:
    assert list((await world.ask(fresh("stream"), "q?")).to_dict()) == [*KEYS, "error"]


@pytest.mark.guarantee("Coverage")
async def test_at_the_deadline_coverage_says_how_much_was_scored(
    world: World, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await world.read(stream, lines(30))
    state = await world.store.load(stream)
    tail = len(world.engine.segmenter().flush(state.tail))
    answer = await world.answering.answer(Query("1", stream, "q?", 0))
    assert answer.coverage == tail / (state.cursor.head + tail)
    assert rests_on(answer) and answer.error is None


@pytest.mark.guarantee("Coverage")
async def test_segments_removed_by_retention_are_not_covered(
    redis_client: Redis, fresh: Fresh
) -> None:
    world, stream = World(redis_client, retention_segments=4), fresh("stream")
    await world.read(stream, lines(30))
    state = await world.store.load(stream)
    tail = len(world.engine.segmenter().flush(state.tail))
    answer = await world.ask(stream, "q?")
    assert answer.coverage == (4 + tail) / (state.cursor.head + tail)


async def test_the_pieces_of_the_text_add_up_to_the_answer(world: World, fresh: Fresh) -> None:
    stream, pieces = fresh("stream"), list[str]()
    await world.read(stream, lines(9))
    async with running(world.scorer):
        answer = await world.answering.answer(Query("1", stream, "q?"), pieces.append)
    assert "".join(pieces) == answer.answer == "q? 3 segments"
    assert len(pieces) == 3


async def test_a_top_k_that_changes_while_its_prompt_is_prefilled_is_prefilled_the_next_time(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, prefilled = fresh("stream"), list[str]()
    qid = await world.set(stream, "q?")
    await world.read(stream, lines(9))

    def prefill(ranked: object, question: str) -> None:
        prefilled.append(question)
        world.prefetcher.mark_stale(stream, qid)

    monkeypatch.setattr(world.engine, "prefill", prefill)
    world.prefetcher.note_query(stream, qid, "q?")
    world.prefetcher.mark_stale(stream, qid)
    await world.prefetcher.prefetch()
    assert (prefilled, world.prefetcher.stale) == (["q?"], {(stream, qid)})


# -- what a query leaves behind ------------------------------------------------------------------


async def test_an_ad_hoc_question_has_a_time_to_live(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.read(stream, lines(9))
    await world.ask(stream, "q?")
    qid = world.scorer.question_id("q?")
    assert (await world.store.questions.load(stream))[qid].expires_at == pytest.approx(
        time.time() + 100, abs=20
    )
    for name in (keys.scored_range(stream, qid), keys.top(stream, qid), keys.text(stream, qid)):
        assert 0 < await world.store.redis.ttl(name) <= 100


@pytest.mark.guarantee("Bounded counts")
async def test_any_number_of_ad_hoc_questions_is_answered_within_their_limit(
    redis_client: Redis, fresh: Fresh
) -> None:
    world, stream = World(redis_client), fresh("stream")
    world.answering.settings = Settings(max_adhoc_questions=3)
    await world.set(stream, "standing?")
    await world.read(stream, lines(9))
    for number in range(8):
        assert (await world.ask(stream, f"{number}?")).error is None
    kept = await world.store.questions.load(stream)
    assert {a.question for a in kept.values()} == {"standing?", "5?", "6?", "7?"}
    names = [key async for key in redis_client.scan_iter(match=f"*{stream}*")]
    qids = {name.split(b":")[-1] for name in names if b":range:" in name or b":top:" in name}
    assert qids == {qid.encode() for qid in kept}


async def test_a_standing_question_asked_explicitly_stays_standing(
    world: World, fresh: Fresh
) -> None:
    stream = fresh("stream")
    qid = await world.set(stream, "q?")
    await world.read(stream, lines(9))
    answer = await world.ask(stream, "q?")
    assert rests_on(answer) == rests_on(await world.ask(stream))
    assert await world.store.questions.load(stream) == {qid: QuestionRecord("q?", set_at=1.0)}
    assert await world.store.redis.ttl(keys.scored_range(stream, qid)) == -1


async def test_the_standing_question_set_last_is_the_default(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.read(stream, lines(9))
    await world.set(stream, "newer?", set_at=2.0)
    await world.set(stream, "older?", set_at=1.0)
    assert (await world.ask(stream)).question == "newer?"


@pytest.mark.guarantee("Coverage")
async def test_a_second_query_scores_nothing_but_the_tail(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.read(stream, lines(30))
    first = await world.ask(stream, "q?")
    assert isinstance(world.engine, HashEngine)
    world.engine.scored.clear()
    assert rests_on(await world.ask(stream, "q?")) == rests_on(first)
    tail = world.engine.segmenter().flush((await world.store.load(stream)).tail)
    assert world.engine.scored == [(segment.text, "q?") for segment in tail]
