"""The questions topic: questions are set once and in order; refused ones are dead letters."""

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.client import client
from stream_app.ingest.partitions import Assignment
from stream_app.ingest.questions import QuestionsAgent
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.state import FencedError, LostWritesError
from stream_app.store.store import StreamStore
from tests.support.agents import AgentSite
from tests.support.fakes import (
    PLENTY,
    TP,
    Event,
    FakeBroker,
    HashEngine,
    coming,
)

Fresh = Callable[[str], str]


class QuestionsSite(AgentSite):
    """A questions agent on a real Redis."""

    def __init__(self, redis: Redis, **changes: Any) -> None:
        super().__init__()
        self.store, engine = StreamStore(redis), HashEngine()
        scorer = Scorer(engine, self.store, PLENTY)
        settings = Settings(max_event_bytes=4096, **changes)
        self.topic = f"topic-{uuid.uuid4().hex}"
        self.partitions = Assignment(self.store, self.topic)
        self.agent = QuestionsAgent(settings, self.partitions, scorer, self.dead_letter)
        self.offset = 0

    async def assign(self) -> FakeBroker:
        """Assign the partition to this worker; the broker has what was committed then."""
        tp = TP(self.topic, 0)
        broker = FakeBroker({tp: self.offset}, {tp: self.offset})
        await self.partitions.assign([tp], broker)
        return broker

    async def deliver(self, stream: str | None, *values: bytes | None) -> list[Event]:
        """Deliver each value as the topic's next event; all are acknowledged, in order."""
        if not self.partitions.owned:
            await self.assign()
        events = [self.event(self.offset + i, stream, value) for i, value in enumerate(values)]
        self.acked.clear()
        await self.agent.run(coming(events))
        assert self.acked == events
        self.offset += len(events)
        return events

    async def redeliver(self, *events: Event) -> None:
        """Deliver the same events once more."""
        await self.agent.run(coming([Event(event.message, []) for event in events]))

    async def standing(self, stream: str) -> set[str]:
        """The stream's questions."""
        records = await self.store.questions.load(stream)
        return {record.question for record in records.values()}


def added(question: str) -> bytes:
    return json.dumps({"question": question, "add": True}).encode()


@pytest.mark.guarantee("Dead letters")
async def test_bad_questions_are_dead_letters_and_the_others_are_set(
    redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = QuestionsSite(redis_client), fresh("stream")
    await site.deliver(stream, b"first?", b"\xff", b"{}", b"x" * 5000, added("second?"))
    assert [event.message.offset for event, _ in site.dead_letters] == [1, 2, 3]
    assert await site.standing(stream) == {"first?", "second?"}
    await site.deliver(None, b"whose?")
    assert "no stream" in site.dead_letters[-1][1]


@pytest.mark.guarantee("Bounded counts")
@pytest.mark.guarantee("Standing questions")
@pytest.mark.parametrize(
    ("refused", "reason"),
    [(b"y" * 100, "takes 107 tokens"), (added("4?"), "XL3M_MAX_STANDING_QUESTIONS")],
)
async def test_watchers_are_told_of_a_refused_question(
    refused: bytes, reason: str, redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = QuestionsSite(redis_client, max_standing_questions=3), fresh("stream")
    updates = client.updates(site.store, stream)
    assert await anext(updates) == {}
    await site.deliver(stream, *(added(f"{i}?") for i in range(3)), refused)
    async with asyncio.timeout(20):
        set_updates = [await anext(updates) for _ in range(3)]
        refusal = await anext(updates)
    await updates.aclose()  # type: ignore[attr-defined]
    assert [update["question"] for update in set_updates] == ["0?", "1?", "2?"]
    ((event, dead_letter_reason),) = site.dead_letters
    assert event.message.value == refused and reason in dead_letter_reason
    assert (refusal["stream"], refusal["error"]) == (stream, dead_letter_reason)
    assert await site.standing(stream) == {"0?", "1?", "2?"}
    await site.deliver(stream, b"instead?")
    assert await site.standing(stream) == {"instead?"}


@pytest.mark.guarantee("Bounded counts")
async def test_questions_create_no_more_streams_than_the_limit(
    redis_client: Redis, fresh: Fresh
) -> None:
    limit = await redis_client.scard(keys.streams()) + 1
    site, streams = (
        QuestionsSite(redis_client, max_streams=limit),
        [fresh("stream") for _ in range(3)],
    )
    for stream in streams:
        await site.deliver(stream, b"q?", None)
        await site.deliver(stream, None)
    assert [event.message.key for event, _ in site.dead_letters] == [
        s.encode() for s in streams[1:]
    ]
    assert all("XL3M_MAX_STREAMS" in reason for _, reason in site.dead_letters)
    remaining = [key async for key in redis_client.scan_iter(match=f"*{streams[1]}*")]
    assert remaining == [] and streams[0] in await site.store.streams()


@pytest.mark.guarantee("Standing questions")
async def test_a_redelivered_question_is_not_set_again(redis_client: Redis, fresh: Fresh) -> None:
    site, stream = QuestionsSite(redis_client), fresh("stream")
    events = await site.deliver(stream, b"old?", b"new?")
    await site.redeliver(*events)
    await site.assign()
    await site.redeliver(*events)
    assert await site.standing(stream) == {"new?"}
    assert (await site.store.load(stream)).cursor.questions == 2


@pytest.mark.guarantee("Lost writes")
async def test_questions_that_redis_lost_are_delivered_again_and_set(
    redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = QuestionsSite(redis_client), fresh("stream")
    events = await site.deliver(stream, b"old?", b"new?", added("more?"))
    await redis_client.delete(keys.questions(stream))
    await redis_client.hset(keys.partition(f"{site.topic}/0"), "next", "1")
    with pytest.raises(LostWritesError, match="lost writes"):
        await site.partitions.check_positions()
    broker = await site.assign()
    assert broker.commits == [{TP(site.topic, 0): 1}]
    await site.redeliver(*events[1:])
    assert await site.standing(stream) == {"new?", "more?"}


@pytest.mark.guarantee("Lost writes")
async def test_a_question_that_redis_lost_before_it_was_noted_is_set_again(
    redis_client: Redis, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, stream = QuestionsSite(redis_client), fresh("stream")
    await site.deliver(stream, b"old?")
    advance, calls = site.partitions.advance, list[int]()

    async def restarted(done: list[Any]) -> None:
        calls.append(len(done))
        if len(calls) == 1:
            site.partitions.trusted_run_id = "a process that is gone"
            await redis_client.delete(keys.questions(stream))
        await advance(done)

    monkeypatch.setattr(site.partitions, "advance", restarted)
    await site.deliver(stream, b"new?")
    assert calls == [1, 1]
    assert await site.standing(stream) == {"new?"}


@pytest.mark.guarantee("Standing questions")
async def test_questions_of_a_partition_not_owned_are_left_to_its_owner(
    redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = QuestionsSite(redis_client), fresh("stream")
    await site.deliver(stream, b"mine?")
    await site.partitions.assign([], FakeBroker())
    event = site.event(1, stream, b"theirs?")
    await site.agent.run(coming([event]))
    assert event not in site.acked
    assert await site.standing(stream) == {"mine?"}


@pytest.mark.guarantee("Missing offsets")
async def test_missing_offsets_of_questions_are_logged(
    redis_client: Redis, fresh: Fresh, caplog: pytest.LogCaptureFixture
) -> None:
    site, stream = QuestionsSite(redis_client), fresh("stream")
    await site.deliver(stream, b"first?")
    site.offset += 4
    await site.deliver(stream, b"sixth?")
    assert f"{site.topic}/0: offsets 1 to 4 are missing" in caplog.text


@pytest.mark.guarantee("Zombie fencing")
@pytest.mark.parametrize("value", [b"outdated?", added("outdated?"), None])
async def test_a_zombie_changes_no_question(
    value: bytes | None, redis_client: Redis, fresh: Fresh
) -> None:
    zombie, stream = QuestionsSite(redis_client), fresh("stream")
    await zombie.assign()
    successor = QuestionsSite(redis_client)
    successor.topic = successor.partitions.topic = zombie.topic
    await successor.deliver(stream, b"theirs?")
    event = zombie.event(0, stream, value)
    with pytest.raises(FencedError):
        await zombie.agent.run(coming([event]))
    assert event not in zombie.acked
    assert await zombie.standing(stream) == {"theirs?"}


@pytest.mark.guarantee("Standing questions")
async def test_watchers_are_told_of_a_question_that_cannot_be_decoded(
    redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = QuestionsSite(redis_client), fresh("stream")
    updates = client.updates(site.store, stream)
    assert await anext(updates) == {}
    value = json.dumps({"question": "q?", "stream": stream, "window": "1h"}).encode()
    await site.deliver(None, value)
    await site.deliver(stream, b"caf\xe9?")
    async with asyncio.timeout(20):
        refusals = [await anext(updates), await anext(updates)]
    await updates.aclose()  # type: ignore[attr-defined]
    assert [refusal["error"] for refusal in refusals] == [reason for _, reason in site.dead_letters]
    assert [refusal["question"] for refusal in refusals] == ["q?", "caf\ufffd?"]
    assert "unknown field 'window'" in refusals[0]["error"]


@pytest.mark.parametrize(("encoding", "standing"), [("strict", set()), ("replace", {"caf\ufffd?"})])
async def test_a_question_that_is_not_utf8_is_handled_by_the_setting(
    encoding: str, standing: set[str], redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = QuestionsSite(redis_client, encoding=encoding), fresh("stream")
    await site.deliver(stream, b"caf\xe9?")
    assert await site.standing(stream) == standing and len(site.dead_letters) == (not standing)


async def test_a_space_before_json_ends_no_question(redis_client: Redis, fresh: Fresh) -> None:
    site, stream = QuestionsSite(redis_client), fresh("stream")
    await site.deliver(stream, b"first?", b' {"question": "second?", "add": true}')
    assert await site.standing(stream) == {"first?", "second?"}
    await site.deliver(stream, b'["third?"]', b"null")
    assert await site.standing(stream) == {"first?", "second?"} and len(site.dead_letters) == 2


@pytest.mark.guarantee("Standing questions")
async def test_watchers_are_told_of_a_question_that_was_set_and_of_its_range(
    redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = QuestionsSite(redis_client), fresh("stream")
    updates = client.updates(site.store, stream)
    assert await anext(updates) == {}
    await site.deliver(stream, b"which pump?")
    async with asyncio.timeout(20):
        update = await anext(updates)
    assert (update["stream"], update["question"], update["range"]) == (
        stream,
        "which pump?",
        [0, 0],
    )
