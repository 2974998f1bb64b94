"""`xl3m watch`: it ends if its own question is rejected, not if another's is."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import click
import pytest
from aiokafka import AIOKafkaConsumer
from redis.asyncio import Redis

from stream_app.cli import watch
from stream_app.client import client
from stream_app.embedded.services import Service
from stream_app.errors import BadEvent
from stream_app.events import encode
from stream_app.requests import decode_question
from stream_app.settings import Settings
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.range_update import RangeUpdate
from stream_app.store.state import Commit, QuestionRecord, ScoredRange, State
from stream_app.store.store import StreamStore
from tests.support.fakes import HashEngine
from tests.support.rows import rows_of
from tests.support.workers import fresh_topics
from xl3m_core import Tail

Fresh = Callable[[str], str]


@pytest.fixture
async def listening(redis_client: Redis) -> AsyncIterator[None]:
    """A subscriber of the query channel, in place of a worker."""
    async with redis_client.pubsub() as pubsub:
        await pubsub.subscribe(keys.query_channel())
        yield


async def refuse(redis: Redis, stream: str, question: str) -> None:
    refusal = {"stream": stream, "question": question, "error": f"no {question}"}
    await redis.publish(keys.update_channel(stream), encode(refusal))


@pytest.mark.usefixtures("listening")
async def test_another_ones_refusal_does_not_end_it(
    listening: None,
    redis_client: Redis,
    redis_url: str,
    fresh: Fresh,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = fresh("stream")

    async def set_question(settings: Settings, stream: str, question: str, replace: bool) -> None:
        assert question == "mine?"
        for refused in ("theirs?", "mine?", "never seen"):
            await refuse(redis_client, stream, refused)

    monkeypatch.setattr(client, "set_question", set_question)
    with pytest.raises(click.UsageError, match=r"^no mine\?$"):
        async with asyncio.timeout(20):
            await watch.watch(Settings(redis=redis_url), stream, " mine? ", as_json=False)


@pytest.mark.usefixtures("listening")
async def test_what_is_known_for_a_question_is_shown_at_once(
    redis_client: Redis,
    redis_url: str,
    fresh: Fresh,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream, store = fresh("stream"), StreamStore(redis_client)
    tail, segments = HashEngine().segmenter().push(Tail(), "line\n" * 9)
    await store.commit([Commit(stream, State(), segments, tail, "t/0", 1, 1)])
    await store.questions.ask(stream, "q", QuestionRecord("mine?"))
    head = len(segments)
    runs = [(0, rows_of([-0.5] * head))]
    await store.extend_range([RangeUpdate(stream, "q", ScoredRange(head, head), 0, head, runs)], 3)

    async def set_question(settings: Settings, stream: str, question: str, replace: bool) -> None:
        """The question exists already: nothing changes, and no message is sent."""

    monkeypatch.setattr(client, "set_question", set_question)
    watching = asyncio.create_task(
        watch.watch(Settings(redis=redis_url), stream, "mine?", as_json=False)
    )
    printed = ""
    async with asyncio.timeout(20):
        while "#0" not in printed:
            assert not watching.done(), watching.result()
            await asyncio.sleep(0.01)
            printed += capsys.readouterr().out
    watching.cancel()
    assert f"scored [0, {head}) of {head}" in printed


async def assert_says_and_waits(
    settings: Settings, stream: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Assert that it prints to standard error only, and waits."""
    watching = asyncio.create_task(watch.watch(settings, stream, None, as_json=True))
    errors = ""
    async with asyncio.timeout(20):
        while said not in errors:
            assert not watching.done(), watching.result()
            await asyncio.sleep(0.01)
            printed = capsys.readouterr()
            assert printed.out == ""
            errors += printed.err
    assert not watching.done()
    watching.cancel()


@pytest.mark.usefixtures("listening")
async def test_a_stream_that_is_not_there_is_said_to_be_waited_for(
    redis_client: Redis, redis_url: str, fresh: Fresh, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, store = fresh("stream"), StreamStore(redis_client)
    await store.register_streams([(f"{stream}x", "t/0")])
    said = f"no stream {stream} yet: waiting for it; known streams: {stream}x"
    await assert_says_and_waits(Settings(redis=redis_url), stream, said, capsys)


@pytest.mark.usefixtures("listening")
async def test_a_stream_without_a_question_is_said_to_have_none(
    redis_client: Redis, redis_url: str, fresh: Fresh, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, store = fresh("stream"), StreamStore(redis_client)
    tail, segments = HashEngine().segmenter().push(Tail(), "line\n" * 9)
    await store.commit([Commit(stream, State(), segments, tail, "t/0", 1, 1)])
    said = "has no standing question: waiting for one"
    await assert_says_and_waits(Settings(redis=redis_url), stream, said, capsys)


async def test_a_question_is_added_and_ends_the_others_only_if_that_is_said(
    durable_broker: Service, redis_url: str, fresh: Fresh
) -> None:
    settings = Settings(broker=durable_broker.url, redis=redis_url, **fresh_topics(fresh))
    stream = fresh("stream")
    await client.set_question(settings, stream, "mine?")
    await client.set_question(settings, stream, "mine alone?", replace=True)
    consumer = AIOKafkaConsumer(
        settings.questions_topic, bootstrap_servers=settings.broker_address,
        auto_offset_reset="earliest",
    )  # fmt: skip
    async with consumer, asyncio.timeout(60):
        events = [await consumer.getone() for _ in range(2)]
    asked = [decode_question(event.key, event.value, 10_000) for event in events]
    assert [(each.question, each.add) for each in asked] == [
        ("mine?", True),
        ("mine alone?", False),
    ]


async def test_what_changes_of_other_questions_is_not_shown_and_an_end_is_told(
    redis_client: Redis, fresh: Fresh, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, store = fresh("stream"), StreamStore(redis_client)
    tail, segments = HashEngine().segmenter().push(Tail(), "line\n" * 9)
    await store.commit([Commit(stream, State(), segments, tail, "t/0", 1, 1)])
    await store.questions.ask(stream, "q", QuestionRecord("mine?", set_at=1.0))
    await store.questions.ask(stream, "r", QuestionRecord("theirs?", set_at=2.0))

    async def updates() -> AsyncIterator[dict[str, Any]]:
        for question in ("theirs?", "mine?"):
            yield {"question": question}
        await store.questions.end_standing(stream)
        await store.questions.ask(stream, "r", QuestionRecord("theirs?"))
        yield {"question": "theirs?"}

    await watch._follow(store, stream, "mine?", updates(), as_json=True)
    printed = capsys.readouterr()
    shown = [json.loads(line)["question"] for line in printed.out.splitlines()]
    assert shown == ["mine?", "theirs?"]
    assert "another client ended this question" in printed.err


@pytest.mark.parametrize("question", ["   ", "?" * 65_537])
async def test_what_may_not_be_asked_is_refused_at_once(question: str, redis_url: str) -> None:
    with pytest.raises(BadEvent, match="question"):
        await watch.watch(Settings(redis=redis_url), "s", question, as_json=False)
