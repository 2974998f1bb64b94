"""The agents: what cannot be done is buried with its reason, and who waits for it is told; queries
are acknowledged in the order they came in, whenever their answers are there.
"""

import asyncio
import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgpack
import pytest
from aiokafka.errors import MessageSizeTooLargeError
from redis.asyncio import Redis

from stream_app.client import client
from stream_app.ingest.partitions import Assignment
from stream_app.ingest.questions import QuestionsAgent
from stream_app.queries.kafka import MAX_AGE_SECONDS, QueriesAgent
from stream_app.requests import Query
from stream_app.runtime.shutdown import Shutdown
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.state import FencedError, LostWritesError
from stream_app.store.store import StreamStore
from tests.support.fakes import (
    NOW,
    PLENTY,
    TP,
    Event,
    FakeBroker,
    HashEngine,
    Message,
    coming,
    running,
    until,
)
from xl3m_core import Answer, Evidence

Fresh = Callable[[str], str]


@dataclass
class Site:
    """Where events end: acknowledged, among the dead letters, answered."""

    topic: str = "t"
    acked: list[Event] = field(default_factory=list)
    letters: list[tuple[Event, str]] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0

    def event(self, offset: int, key: str | None, value: bytes | None) -> Event:
        """An event of a topic."""
        message = Message(self.topic, 0, offset, NOW, key.encode() if key else None, value)
        return Event(message, self.acked)

    async def bury(self, event: Any, reason: str) -> None:
        """A dead letter."""
        assert event not in self.acked
        self.letters.append((event, reason))

    async def send(self, key: bytes | None, value: bytes) -> None:
        """An answer."""
        self.sent.append(json.loads(value))


# -- questions -----------------------------------------------------------------------------------


class Asking(Site):
    """A questions agent on a real Redis."""

    def __init__(self, redis: Redis, **changes: Any) -> None:
        super().__init__()
        self.store, engine = StreamStore(redis), HashEngine()
        scoring = Scorer(engine, self.store, PLENTY)
        settings = Settings(max_event_bytes=4096, **changes)
        self.topic = f"topic-{uuid.uuid4().hex}"
        self.partitions = Assignment(self.store, self.topic)
        self.agent = QuestionsAgent(settings, self.partitions, scoring, self.bury)
        self.offset = 0

    async def assigned(self) -> FakeBroker:
        """The partition becomes this worker's; what the broker was told then."""
        tp = TP(self.topic, 0)
        broker = FakeBroker({tp: self.offset}, {tp: self.offset})
        await self.partitions.assign([tp], broker)
        return broker

    async def take(self, stream: str | None, *values: bytes | None) -> list[Event]:
        """Each value as the topic's next event; all are acknowledged, in order."""
        if not self.partitions.owned:
            await self.assigned()
        events = [self.event(self.offset + i, stream, value) for i, value in enumerate(values)]
        self.acked.clear()
        await self.agent.run(coming(events))
        assert self.acked == events
        self.offset += len(events)
        return events

    async def again(self, *events: Event) -> None:
        """The same events, delivered once more."""
        await self.agent.run(coming([Event(event.message, []) for event in events]))

    async def standing(self, stream: str) -> set[str]:
        """The stream's questions."""
        return {asked.question for asked in (await self.store.questions.load(stream)).values()}


def added(question: str) -> bytes:
    return json.dumps({"question": question, "add": True}).encode()


@pytest.mark.guarantee("Dead letters")
async def test_bad_events_of_questions_are_buried_and_the_others_are_done(
    redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = Asking(redis_client), fresh("stream")
    await site.take(stream, b"first?", b"\xff", b"{}", b"x" * 5000, added("second?"))
    assert [event.message.offset for event, _ in site.letters] == [1, 2, 3]
    assert await site.standing(stream) == {"first?", "second?"}
    await site.take(None, b"whose?")
    assert "no stream" in site.letters[-1][1]


@pytest.mark.guarantee("Bounded counts")
@pytest.mark.guarantee("Standing questions")
@pytest.mark.parametrize(
    ("refused", "reason"),
    [(b"y" * 100, "takes 107 tokens"), (added("4?"), "XL3M_MAX_STANDING_QUESTIONS")],
)
async def test_who_watches_is_told_of_a_question_that_was_refused(
    refused: bytes, reason: str, redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = Asking(redis_client, max_standing_questions=3), fresh("stream")
    updates = client.updates(site.store, stream)
    assert await anext(updates) == {}
    await site.take(stream, *(added(f"{i}?") for i in range(3)), refused)
    async with asyncio.timeout(20):
        set_ = [await anext(updates) for _ in range(3)]
        told = await anext(updates)
    await updates.aclose()  # type: ignore[attr-defined]
    assert [each["question"] for each in set_] == ["0?", "1?", "2?"]
    ((event, buried),) = site.letters
    assert event.message.value == refused and reason in buried
    assert (told["stream"], told["error"]) == (stream, buried)
    assert await site.standing(stream) == {"0?", "1?", "2?"}
    await site.take(stream, b"instead?")
    assert await site.standing(stream) == {"instead?"}


@pytest.mark.guarantee("Bounded counts")
async def test_questions_make_no_more_streams_than_there_may_be(
    redis_client: Redis, fresh: Fresh
) -> None:
    most = await redis_client.scard(keys.streams()) + 1
    site, streams = Asking(redis_client, max_streams=most), [fresh("stream") for _ in range(3)]
    for stream in streams:
        await site.take(stream, b"q?", None)
        await site.take(stream, None)
    assert [event.message.key for event, _ in site.letters] == [s.encode() for s in streams[1:]]
    assert all("XL3M_MAX_STREAMS" in reason for _, reason in site.letters)
    left = [key async for key in redis_client.scan_iter(match=f"*{streams[1]}*")]
    assert left == [] and streams[0] in await site.store.streams()


@pytest.mark.guarantee("Standing questions")
async def test_a_question_done_is_not_done_again_when_its_event_comes_again(
    redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = Asking(redis_client), fresh("stream")
    events = await site.take(stream, b"old?", b"new?")
    await site.again(*events)
    await site.assigned()
    await site.again(*events)
    assert await site.standing(stream) == {"new?"}
    assert (await site.store.load(stream)).cursor.questions == 2


@pytest.mark.guarantee("Lost writes")
async def test_questions_that_redis_lost_are_delivered_again_and_set(
    redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = Asking(redis_client), fresh("stream")
    events = await site.take(stream, b"old?", b"new?", added("more?"))
    await redis_client.delete(keys.questions(stream))
    await redis_client.hset(keys.partition(f"{site.topic}/0"), "next", "1")
    with pytest.raises(LostWritesError, match="lost writes"):
        await site.partitions.check_positions()
    broker = await site.assigned()
    assert broker.commits == [{TP(site.topic, 0): 1}]
    await site.again(*events[1:])
    assert await site.standing(stream) == {"new?", "more?"}


@pytest.mark.guarantee("Lost writes")
async def test_a_question_that_redis_lost_before_it_was_noted_is_set_again(
    redis_client: Redis, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, stream = Asking(redis_client), fresh("stream")
    await site.take(stream, b"old?")
    advance, calls = site.partitions.advance, list[int]()

    async def restarted(done: list[Any]) -> None:
        calls.append(len(done))
        if len(calls) == 1:
            site.partitions.trusted_run_id = "a process that is gone"
            await redis_client.delete(keys.questions(stream))
        await advance(done)

    monkeypatch.setattr(site.partitions, "advance", restarted)
    await site.take(stream, b"new?")
    assert calls == [1, 1]
    assert await site.standing(stream) == {"new?"}


@pytest.mark.guarantee("Standing questions")
async def test_questions_of_a_partition_not_owned_are_left_to_its_owner(
    redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = Asking(redis_client), fresh("stream")
    await site.take(stream, b"mine?")
    await site.partitions.assign([], FakeBroker())
    event = site.event(1, stream, b"theirs?")
    await site.agent.run(coming([event]))
    assert event not in site.acked
    assert await site.standing(stream) == {"mine?"}


@pytest.mark.guarantee("Missing offsets")
async def test_questions_that_never_came_are_reported(
    redis_client: Redis, fresh: Fresh, caplog: pytest.LogCaptureFixture
) -> None:
    site, stream = Asking(redis_client), fresh("stream")
    await site.take(stream, b"first?")
    site.offset += 4
    await site.take(stream, b"sixth?")
    assert f"{site.topic}/0: offsets 1 to 4 are missing" in caplog.text


@pytest.mark.guarantee("Zombie fencing")
@pytest.mark.parametrize("value", [b"outdated?", added("outdated?"), None])
async def test_who_lost_the_partition_without_knowing_changes_no_question(
    value: bytes | None, redis_client: Redis, fresh: Fresh
) -> None:
    zombie, stream = Asking(redis_client), fresh("stream")
    await zombie.assigned()
    successor = Asking(redis_client)
    successor.topic = successor.partitions.topic = zombie.topic
    await successor.take(stream, b"theirs?")
    event = zombie.event(0, stream, value)
    with pytest.raises(FencedError):
        await zombie.agent.run(coming([event]))
    assert event not in zombie.acked
    assert await zombie.standing(stream) == {"theirs?"}


# -- queries -------------------------------------------------------------------------------------


class Slow:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}

    async def answer(self, query: Query) -> Answer:
        """Once its gate is open."""
        self.gates[query.id] = asyncio.Event()
        await self.gates[query.id].wait()
        return Answer(question=query.question or "", answer="so it is")


@dataclass
class Service:
    """The agent, fed with events."""

    agent: QueriesAgent
    events: list[Event]

    async def run(self) -> None:
        """Until it is cancelled."""
        await self.agent.run(coming(self.events))


@pytest.mark.guarantee("Dead letters")
@pytest.mark.guarantee("Kafka queries")
@pytest.mark.parametrize("seed", range(5))
async def test_queries_are_acknowledged_in_order_whatever_the_order_of_their_answers(
    seed: int,
) -> None:
    site, slow = Site(), Slow()
    events = [site.event(i, "s", b'{"id": "%d"}' % i) for i in range(10)]
    events[4].message = events[4].message._replace(value=b"\xff")
    agent = QueriesAgent(Settings(), slow, site.send, site.bury, Shutdown(60.0))  # type: ignore[arg-type]
    order = [i for i in range(10) if i != 4]
    random.Random(seed).shuffle(order)
    async with running(Service(agent, events)):
        await until(lambda: len(slow.gates) == 9)
        for done, number in enumerate(order, 1):
            slow.gates[f"{number}"].set()
            answered = {*order[:done], 4}
            first = next((i for i in range(10) if i not in answered), 10)
            await until(lambda n=first, d=done: (len(site.acked), len(site.sent)) == (n, d))  # type: ignore[misc]
            assert site.acked == events[:first]
    assert [int(answer["id"]) for answer in site.sent] == order
    assert [event for event, _ in site.letters] == [events[4]]


@pytest.mark.guarantee("Bounded counts")
async def test_no_more_queries_are_begun_than_may_be_at_once() -> None:
    site, slow = Site(), Slow()
    events = [site.event(i, "s", b'{"id": "%d"}' % i) for i in range(60)]
    agent = QueriesAgent(Settings(), slow, site.send, site.bury, Shutdown(60.0))  # type: ignore[arg-type]
    async with running(Service(agent, events)):
        for number in range(60):
            await until(lambda n=number: f"{n}" in slow.gates)  # type: ignore[misc]
            assert len(slow.gates) - len(site.sent) <= 16 + 2
            slow.gates[f"{number}"].set()
        await until(lambda: site.acked == events)


# -- requests that are not as they should be -----------------------------------------------------


class Quick:
    """Answers at once, and notes what was counted."""

    def __init__(self) -> None:
        self.asked: list[Query] = []
        self.counted: list[str | None] = []

    async def answer(self, query: Query) -> Answer:
        """So it is."""
        self.asked.append(query)
        return Answer(question=query.question or "", answer="so it is")

    def on_answer(self, answer: Answer, seconds: float) -> None:
        self.counted.append(answer.error)


async def answered_all(site: Site, events: list[Event], **changes: Any) -> Quick:
    """What a queries agent made of them; all are acknowledged, in order."""
    quick, settings = Quick(), Settings(max_event_bytes=4096, **changes)
    agent = QueriesAgent(settings, quick, site.send, site.bury, Shutdown(60.0))  # type: ignore[arg-type]
    site.skipped = 0

    def skipped() -> None:
        site.skipped += 1

    agent.on_skipped = skipped
    async with running(Service(agent, events)):
        await until(lambda: site.acked == events)
    return quick


@pytest.mark.guarantee("Kafka queries")
@pytest.mark.parametrize(
    ("value", "id", "stream", "reason"),
    [
        (b'{"id": "p3", "window": "1h", "question": "q?"}', "p3", "s", "unknown field 'window'"),
        (b'{"id": "p4", "stream": ["a", "b"]}', "p4", "", "ask each stream"),
        (b'{"id": 5, "k": 10, "stream": "other"}', "5", "other", "unknown field 'k'"),
        (b'\n{"id": "p6", "question": "caf\xe9"}', "p6", "s", "XL3M_ENCODING=replace"),
    ],
)
async def test_who_sent_a_bad_query_through_kafka_has_an_answer_and_a_dead_letter(
    value: bytes, id: str, stream: str, reason: str
) -> None:
    site = Site()
    event = site.event(0, "s", value)
    quick = await answered_all(site, [event])
    ((buried, why),) = site.letters
    [answer] = site.sent
    assert buried is event and reason in why and not quick.asked
    assert answer == {"id": id, "stream": stream or None, "error": why}


async def test_a_bad_query_in_msgpack_is_answered_in_msgpack() -> None:
    site, sent = Site(), list[bytes]()

    async def send(key: bytes | None, value: bytes) -> None:
        sent.append(value)

    site.send = send  # type: ignore[method-assign]
    await answered_all(site, [site.event(0, "s", msgpack.packb({"id": 7, "window": 1}))])
    assert msgpack.unpackb(sent[0])["id"] == "7"


async def test_empty_queries_are_skipped_counted_and_acknowledged() -> None:
    site = Site()
    events = [site.event(0, "s", None), site.event(1, "s", b""), site.event(2, "s", b"q?")]
    quick = await answered_all(site, events)
    assert (site.skipped, site.letters, len(site.sent)) == (2, [], 1)
    assert [query.question for query in quick.asked] == ["q?"]


@pytest.mark.guarantee("Kafka queries")
async def test_a_query_that_lay_in_its_topic_for_long_is_answered_with_that() -> None:
    site = Site()
    events = [site.event(i, "s", b'{"id": "%d", "question": "q?"}' % i) for i in range(3)]
    old = NOW - MAX_AGE_SECONDS - 60
    events[1].message = events[1].message._replace(timestamp=old)
    events[2].message = events[2].message._replace(timestamp=-0.001)
    quick = await answered_all(site, events)
    assert [query.id for query in quick.asked] == ["0", "2"]
    (refused,) = [answer for answer in site.sent if answer["id"] == "1"]
    assert "too old" in refused["error"] and "asked at 20" in refused["error"]
    assert quick.counted == [refused["error"]] and not site.letters


async def test_what_has_no_key_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    value = b'{"question": "q?", "stream": "s"}'
    await answered_all(site, [site.event(i, None, value) for i in range(3)])
    assert caplog.text.count("names its stream in a field and has no key") == 1
    caplog.clear()
    site = Site()
    await answered_all(site, [site.event(i, "s", b"q?") for i in range(3)])
    assert "no key" not in caplog.text


@pytest.mark.guarantee("Standing questions")
async def test_who_watches_hears_of_a_question_that_cannot_be_read(
    redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = Asking(redis_client), fresh("stream")
    updates = client.updates(site.store, stream)
    assert await anext(updates) == {}
    value = json.dumps({"question": "q?", "stream": stream, "window": "1h"}).encode()
    await site.take(None, value)
    await site.take(stream, b"caf\xe9?")
    async with asyncio.timeout(20):
        told = [await anext(updates), await anext(updates)]
    await updates.aclose()  # type: ignore[attr-defined]
    assert [each["error"] for each in told] == [reason for _, reason in site.letters]
    assert [each["question"] for each in told] == ["q?", "caf\ufffd?"]
    assert "unknown field 'window'" in told[0]["error"]


@pytest.mark.parametrize(("encoding", "standing"), [("strict", set()), ("replace", {"caf\ufffd?"})])
async def test_a_question_that_is_not_utf8_goes_by_the_setting(
    encoding: str, standing: set[str], redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = Asking(redis_client, encoding=encoding), fresh("stream")
    await site.take(stream, b"caf\xe9?")
    assert await site.standing(stream) == standing and len(site.letters) == (not standing)


async def test_a_blank_before_json_ends_no_question(redis_client: Redis, fresh: Fresh) -> None:
    site, stream = Asking(redis_client), fresh("stream")
    await site.take(stream, b"first?", b' {"question": "second?", "add": true}')
    assert await site.standing(stream) == {"first?", "second?"}
    await site.take(stream, b'["third?"]', b"null")
    assert await site.standing(stream) == {"first?", "second?"} and len(site.letters) == 2


@pytest.mark.guarantee("Standing questions")
async def test_who_watches_hears_of_a_question_that_is_set_with_what_is_scored_of_it(
    redis_client: Redis, fresh: Fresh
) -> None:
    site, stream = Asking(redis_client), fresh("stream")
    updates = client.updates(site.store, stream)
    assert await anext(updates) == {}
    await site.take(stream, b"which pump?")
    async with asyncio.timeout(20):
        told = await anext(updates)
    assert (told["stream"], told["question"], told["range"]) == (stream, "which pump?", [0, 0])


@pytest.mark.guarantee("Kafka queries")
async def test_an_answer_too_large_for_its_topic_is_sent_without_its_evidences_texts() -> None:
    site, most = Site(), 4000
    evidence = (Evidence("s", 3, -0.1, 0, most, "x" * most),)

    class Large(Quick):
        async def answer(self, query: Query) -> Answer:
            return Answer(question="q?", answer="so it is", evidence=evidence)

    async def send(key: bytes | None, value: bytes) -> None:
        if len(value) > most:
            raise MessageSizeTooLargeError("too large")
        await site.send(key, value)

    event = site.event(0, "s", b'{"id": "large", "question": "q?"}')
    agent = QueriesAgent(Settings(), Large(), send, site.bury, Shutdown(60.0))  # type: ignore[arg-type]
    async with running(Service(agent, [event])):
        await until(lambda: site.acked == [event])
    [answer] = site.sent
    assert (answer["answer"], answer["truncated"]) == ("so it is", True)
    assert [(e["index"], e["text"]) for e in answer["evidence"]] == [(3, "")]
