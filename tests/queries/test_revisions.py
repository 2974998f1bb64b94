"""Revisions: a query whose log takes long gets early answers, which improve, and then the answer
that it would have got without them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.client import client
from stream_app.events import decode, encode
from stream_app.queries import revisions
from stream_app.queries.revisions import RevisionPace
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.leases import LEASED
from stream_app.store.state import Commit
from stream_app.store.store import StreamStore
from tests.support.fakes import HashEngine, until
from tests.support.gated import GatedEngine
from tests.support.pubsub import PubSubClient, is_missing, workers_on

Fresh = Callable[[str], str]
STEPS = 1000
"""More steps than any stream here takes."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Revisions as often as there is anything new."""
    monkeypatch.setattr(revisions, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(revisions, "POLL_SECONDS", 0.01)


@pytest.fixture
async def long(redis_client: Redis, fresh: Fresh) -> str:
    """A stream of two hundred lines."""
    name, store = fresh("stream"), StreamStore(redis_client)
    base = await store.load(name)
    text = "".join(f"line {i}\n" for i in range(200))
    tail, segments = HashEngine().segmenter().push(base.tail, text)
    await store.commit([Commit(name, base, segments, tail, "t/0", 1, 1)])
    return name


@asynccontextmanager
async def slow(
    redis_url: str, first_answer_seconds: float = 0.05, count: int = 1
) -> AsyncIterator[tuple[PubSubClient, GatedEngine]]:
    """A worker whose steps wait for permits, and a client of it."""
    engine = GatedEngine()
    options: dict[str, Any] = {"first_answer_seconds": first_answer_seconds}
    async with workers_on(redis_url, count, engine=engine, **options) as connected:
        try:
            yield connected, engine
        finally:
            engine.permit(STEPS)


async def next_of(connected: PubSubClient, kind: str) -> list[dict[str, Any]]:
    """The messages up to the next one of that type."""
    messages = list[dict[str, Any]]()
    while not messages or messages[-1]["type"] != kind:
        messages.append(decode((await connected.receive())[1]))
        assert kind == "answer" or messages[-1]["type"] != "answer"
    return messages


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """What two answers to one question have in common."""
    return {name: answer[name] for name in ("question", "answer", "coverage", "evidence", "as_of")}


@pytest.mark.guarantee("Early answers")
@pytest.mark.parametrize("as_json", [True, False])
async def test_a_first_answer_comes_before_the_log_is_covered_and_the_last_one_is_the_plain_one(
    redis_url: str, long: str, fresh: Fresh, as_json: bool
) -> None:
    query = {"id": fresh("query"), "stream": long, "question": "q?"}
    async with slow(redis_url) as (connected, engine):
        await connected.ask(encode(query, as_json))
        engine.permit(1)
        first = (await next_of(connected, "revision"))[-1]
        assert (first["id"], first["stream"], first["question"]) == (query["id"], long, "q?")
        assert (first["revision"], first["final"]) == (1, False)
        assert first["evidence"] and 0 < first["coverage"] < 1
        engine.permit(STEPS)
        final = (await next_of(connected, "answer"))[-1]
        await connected.ask(query | {"id": fresh("query"), "early": False})
        assert plain(final) == plain((await next_of(connected, "answer"))[-1])
        assert final["coverage"] == 1 and "revision" not in final


@pytest.mark.guarantee("Early answers")
async def test_revisions_improve_and_each_rests_on_other_segments_than_the_one_before(
    redis_url: str, long: str, fresh: Fresh
) -> None:
    async with slow(redis_url) as (connected, engine):
        await connected.ask({"id": fresh("query"), "stream": long, "question": "q?"})
        made = list[dict[str, Any]]()
        for number in (1, 2, 3):
            await score_until_better(connected, engine, long)
            made.append((await next_of(connected, "revision"))[-1])
            assert made[-1]["revision"] == number
        engine.permit(STEPS)
        made.append((await next_of(connected, "answer"))[-1])
    coverage = [each["coverage"] for each in made]
    assert coverage == sorted(set(coverage))
    best = [sorted((e["score"] for e in each["evidence"]), reverse=True) for each in made]
    assert all(len(each) == 3 for each in best)
    assert best == sorted(best)
    texts = [{e["text"] for e in each["evidence"]} for each in made[:3]]
    assert texts[0] != texts[1] != texts[2]


async def score_until_better(connected: PubSubClient, engine: GatedEngine, stream: str) -> None:
    """Score steps until the best segments are others."""
    (worker,) = connected.workers
    qid = worker.scorer.question_id("q?")

    async def best() -> Any:
        view = await worker.store.snapshot(stream, qid)
        return {segment.index for segment, _ in view.top} if view else set()

    before = await best()
    while await best() == before:
        await score_one(connected, engine)


@pytest.mark.guarantee("Early answers")
async def test_the_pieces_of_a_revision_name_it_and_are_not_those_of_the_answer(
    redis_url: str, long: str, fresh: Fresh
) -> None:
    async with slow(redis_url) as (connected, engine):
        await connected.ask({"id": fresh("query"), "stream": long, "question": "q?"})
        engine.permit(1)
        *pieces, revision = await next_of(connected, "revision")
        assert {piece["type"] for piece in pieces} == {"revision_text"}
        assert {piece["revision"] for piece in pieces} == {1}
        assert "".join(piece["piece"] for piece in pieces) == revision["answer"]
        assert not any("text" in piece for piece in [*pieces, revision])
        engine.permit(STEPS)
        *pieces, answer = await next_of(connected, "answer")
        text = [piece["text"] for piece in pieces if piece["type"] == "text"]
        assert "".join(text) == answer["answer"]


@pytest.mark.guarantee("Early answers")
async def test_a_reader_that_knows_no_revisions_sees_the_answer_alone(
    redis_url: str, long: str, fresh: Fresh
) -> None:
    """It takes `text` of each message that is no answer, and stops at the answer."""
    async with slow(redis_url) as (connected, engine):
        await connected.ask({"id": fresh("query"), "stream": long, "question": "q?"})
        engine.permit(1)
        messages = await next_of(connected, "revision")
        engine.permit(STEPS)
        messages += await next_of(connected, "answer")
        streamed = "".join(str(each.get("text", "")) for each in messages[:-1])
        assert streamed == messages[-1]["answer"]


@pytest.mark.guarantee("Early answers")
async def test_there_is_no_second_revision_while_nothing_changes_and_the_answer_is_not_made_anew(
    redis_url: str, long: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with slow(redis_url) as (connected, engine):
        query_id, views = fresh("query"), 0
        store = connected.workers[0].store
        view = store.query_view

        async def counted(*args: Any) -> Any:
            nonlocal views
            views += 1
            return await view(*args)

        monkeypatch.setattr(store, "query_view", counted)
        query = {"id": query_id, "stream": long, "question": "q?", "deadline": 1.5}
        await connected.ask(query)
        engine.permit(1)
        revision = (await next_of(connected, "revision"))[-1]
        seen = views
        await until(lambda: views > seen + 5)
        messages = await next_of(connected, "answer")
        assert [each["type"] for each in messages] == ["text", "answer"]
        assert messages[0]["text"] == messages[1]["answer"] == revision["answer"]
        assert len(engine.answered) == 1


@pytest.mark.guarantee("Early answers")
@pytest.mark.parametrize(
    ("first", "fields"),
    [(3.0, {"deadline": 0.3}), (0.0, {"deadline": 0.3}), (0.05, {"early": False, "deadline": 0.3})],
)
async def test_no_revision_if_the_deadline_is_shorter_or_none_is_wanted(
    redis_url: str, long: str, fresh: Fresh, first: float, fields: dict[str, Any]
) -> None:
    async with slow(redis_url, first) as (connected, engine):
        engine.permit(1)
        await connected.ask({"id": fresh("query"), "stream": long, "question": "q?"} | fields)
        kinds = [each["type"] for each in await next_of(connected, "answer")]
        assert set(kinds) <= {"text", "answer"}
        assert len(engine.answered) == 1


@pytest.mark.guarantee("Early answers")
async def test_nothing_more_is_generated_for_a_client_that_left_but_the_answer(
    redis_url: str, long: str, fresh: Fresh
) -> None:
    query = {"id": fresh("query"), "stream": long, "question": "q?"}
    async with slow(redis_url) as (connected, engine):
        await connected.ask(query)
        engine.permit(1)
        await next_of(connected, "revision")
        await connected.pubsub.punsubscribe()
        for _ in range(8):
            await score_one(connected, engine)
        engine.permit(STEPS)
        await until(lambda: is_answered(connected, query["id"]))
        assert len(engine.answered) <= 3  # one revision that nobody received, and the answer
        await connected.pubsub.psubscribe(keys.answer_channel("*"))
        await connected.ask(query)
        assert (await next_of(connected, "answer"))[-1]["coverage"] == 1


async def score_one(connected: PubSubClient, engine: GatedEngine) -> None:
    """Score one step."""
    scorer = connected.workers[0].scorer
    steps = scorer.steps
    engine.permit(1)
    await until(lambda: scorer.steps > steps)


async def is_answered(connected: PubSubClient, query_id: str) -> bool:
    """Whether Redis has the query's answer, not its lease."""
    value: Any = await connected.redis.get(keys.lease(query_id))
    return value is not None and not value.startswith(LEASED)


@pytest.mark.guarantee("Early answers")
async def test_a_revision_leaves_the_lease_and_a_worker_that_stops_frees_it(
    redis_url: str, long: str, fresh: Fresh
) -> None:
    query_id = fresh("query")
    async with slow(redis_url) as (connected, engine):
        await connected.ask({"id": query_id, "stream": long, "question": "q?"})
        engine.permit(1)
        await next_of(connected, "revision")
        assert not await is_answered(connected, query_id)
        assert not await is_missing(connected.redis, keys.lease(query_id))
    async with Redis.from_url(redis_url) as redis:
        assert await is_missing(redis, keys.lease(query_id))


@pytest.mark.guarantee("Early answers")
async def test_one_of_several_workers_sends_revisions(
    redis_url: str, long: str, fresh: Fresh
) -> None:
    async with slow(redis_url, count=3) as (connected, engine):
        await connected.ask({"id": fresh("query"), "stream": long, "question": "q?"})
        engine.permit(1)
        messages = await next_of(connected, "revision")
        engine.permit(STEPS)
        messages += await next_of(connected, "answer")
    numbers = [each["revision"] for each in messages if each["type"] == "revision"]
    assert numbers == [*range(1, len(numbers) + 1)]
    assert sum(len(worker.answered) for worker in connected.workers) == 1


@pytest.mark.guarantee("Early answers")
async def test_a_question_with_scores_has_its_first_answer_at_once(
    redis_url: str, long: str, fresh: Fresh
) -> None:
    query = {"stream": long, "question": "q?"}
    async with slow(redis_url, first_answer_seconds=60) as (connected, engine):
        engine.permit(2)
        await connected.ask(query | {"id": fresh("query"), "deadline": 0.5})
        await next_of(connected, "answer")
        await connected.ask(query | {"id": fresh("query"), "deadline": 90})
        assert (await next_of(connected, "revision"))[-1]["revision"] == 1


async def test_the_client_yields_revisions_and_the_answer(redis_url: str, long: str) -> None:
    async with slow(redis_url) as (connected, engine):
        engine.permit(1)
        kinds = list[str]()
        async for message in client.ask(connected.store, long, "q?", 20):
            kinds.append(message["type"])
            if kinds[-1] == "revision":
                engine.permit(STEPS)
        assert kinds.index("revision") < kinds.index("text")
        assert (kinds.count("answer"), kinds[-1]) == (1, "answer")


@pytest.mark.guarantee("Early answers")
def test_scoring_has_the_model_for_three_quarters_of_the_time() -> None:
    pace = RevisionPace(3.0)
    assert pace.is_free
    pace.generated(100.0)
    assert not pace.is_free
    assert pace.pause() == pytest.approx(300, abs=1)


def test_the_first_answer_begins_early_enough_to_be_complete_in_time() -> None:
    pace = RevisionPace(3.0)
    assert pace.first_pause() == pytest.approx(2.0)
    for seconds in (0.5, 0.5):
        pace.observe(seconds)
    assert pace.first_pause() == pytest.approx(2.5)
    pace.observe(100.0)
    assert pace.first_pause() == pytest.approx(1.0)


async def test_two_queries_make_their_revisions_one_after_the_other() -> None:
    pace, busy, most = RevisionPace(0.01), 0, 0

    class Anyone:
        """Listens."""

        listens = True

        def draft(self, revision: int, text: str) -> None: ...

        def revised(self, revision: int, answer: Any) -> None: ...

    async def revise(revision: int, last: Any) -> Any:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1
        return object(), object()

    covered = asyncio.create_task(asyncio.sleep(0.2))
    each = [revisions.Revisions(pace, Anyone(), revise) for _ in range(3)]
    loop_end = time.monotonic() + 60
    await asyncio.gather(*(one.run(covered, loop_end, at_once=True) for one in each))
    assert most == 1
    assert all(one.count for one in each)
