"""The queries topic: queries are answered concurrently and acknowledged in order."""

import asyncio
import random
from dataclasses import dataclass
from typing import Any, cast

import msgpack
import pytest
from aiokafka.errors import MessageSizeTooLargeError

from stream_app.queries.answering import Answering
from stream_app.queries.kafka import MAX_AGE_SECONDS, QueriesAgent
from stream_app.requests import Query
from stream_app.runtime.shutdown import Shutdown
from stream_app.settings import Settings
from tests.support.agents import AgentSite
from tests.support.fakes import (
    NOW,
    Event,
    coming,
    running,
    until,
)
from xl3m_core import Answer, Evidence


class GatedAnswering:
    """Answers each query once its gate is open."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}

    async def answer(self, query: Query) -> Answer:
        """An answer, once the gate is open."""
        self.gates[query.id] = asyncio.Event()
        await self.gates[query.id].wait()
        return Answer(question=query.question or "", answer="so it is")


@dataclass
class Service:
    """An agent and the events that are delivered to it."""

    agent: QueriesAgent
    events: list[Event]

    async def run(self) -> None:
        """Run until cancelled."""
        await self.agent.run(coming(self.events))


@pytest.mark.guarantee("Dead letters")
@pytest.mark.guarantee("Kafka queries")
@pytest.mark.parametrize("seed", range(5))
async def test_queries_are_acknowledged_in_order_in_whatever_order_they_are_answered(
    seed: int,
) -> None:
    site, gated = AgentSite(), GatedAnswering()
    events = [site.event(i, "s", b'{"id": "%d"}' % i) for i in range(10)]
    events[4].message = events[4].message._replace(value=b"\xff")
    agent = QueriesAgent(Settings(), gated, site.send, site.dead_letter, Shutdown(60.0))  # type: ignore[arg-type]
    order = [i for i in range(10) if i != 4]
    random.Random(seed).shuffle(order)
    async with running(Service(agent, events)):
        await until(lambda: len(gated.gates) == 9)
        for done, number in enumerate(order, 1):
            gated.gates[f"{number}"].set()
            answered = {*order[:done], 4}
            first = next((i for i in range(10) if i not in answered), 10)
            await until(lambda n=first, d=done: (len(site.acked), len(site.sent)) == (n, d))  # type: ignore[misc]
            assert site.acked == events[:first]
    assert [int(answer["id"]) for answer in site.sent] == order
    assert [event for event, _ in site.dead_letters] == [events[4]]


@pytest.mark.guarantee("Bounded counts")
async def test_the_number_of_concurrent_queries_is_limited() -> None:
    site, gated = AgentSite(), GatedAnswering()
    events = [site.event(i, "s", b'{"id": "%d"}' % i) for i in range(60)]
    agent = QueriesAgent(Settings(), gated, site.send, site.dead_letter, Shutdown(60.0))  # type: ignore[arg-type]
    async with running(Service(agent, events)):
        for number in range(60):
            await until(lambda n=number: f"{n}" in gated.gates)  # type: ignore[misc]
            assert len(gated.gates) - len(site.sent) <= 16 + 2
            gated.gates[f"{number}"].set()
        await until(lambda: site.acked == events)


class InstantAnswering:
    """Answers at once; queries: those it got; counted: the errors of answers given elsewhere."""

    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.counted: list[str | None] = []

    async def answer(self, query: Query) -> Answer:
        """The same answer to all."""
        self.queries.append(query)
        return Answer(question=query.question or "", answer="so it is")

    def on_answer(self, answer: Answer, seconds: float) -> None:
        self.counted.append(answer.error)


async def answer_all(site: AgentSite, events: list[Event], **changes: Any) -> InstantAnswering:
    """Have a queries agent answer the events; all are acknowledged, in order."""
    instant, settings = InstantAnswering(), Settings(max_event_bytes=4096, **changes)
    site.skipped = 0

    def on_skipped() -> None:
        site.skipped += 1

    answering = cast(Answering, instant)
    agent = QueriesAgent(
        settings, answering, site.send, site.dead_letter, Shutdown(60.0), on_skipped=on_skipped
    )
    async with running(Service(agent, events)):
        await until(lambda: site.acked == events)
    return instant


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
async def test_a_bad_query_through_kafka_has_an_answer_and_a_dead_letter(
    value: bytes, id: str, stream: str, reason: str
) -> None:
    site = AgentSite()
    event = site.event(0, "s", value)
    instant = await answer_all(site, [event])
    ((dead_letter, why),) = site.dead_letters
    [answer] = site.sent
    assert dead_letter is event and reason in why and not instant.queries
    assert answer == {"id": id, "stream": stream or None, "error": why}


async def test_a_bad_query_in_msgpack_is_answered_in_msgpack() -> None:
    site, sent = AgentSite(), list[bytes]()

    async def send(key: bytes | None, value: bytes) -> None:
        sent.append(value)

    site.send = send  # type: ignore[method-assign]
    await answer_all(site, [site.event(0, "s", msgpack.packb({"id": 7, "window": 1}))])
    assert msgpack.unpackb(sent[0])["id"] == "7"


async def test_empty_queries_are_skipped_counted_and_acknowledged() -> None:
    site = AgentSite()
    events = [site.event(0, "s", None), site.event(1, "s", b""), site.event(2, "s", b"q?")]
    instant = await answer_all(site, events)
    assert (site.skipped, site.dead_letters, len(site.sent)) == (2, [], 1)
    assert [query.question for query in instant.queries] == ["q?"]


@pytest.mark.guarantee("Kafka queries")
async def test_a_query_that_is_too_old_is_answered_with_that() -> None:
    site = AgentSite()
    events = [site.event(i, "s", b'{"id": "%d", "question": "q?"}' % i) for i in range(3)]
    old = NOW - MAX_AGE_SECONDS - 60
    events[1].message = events[1].message._replace(timestamp=old)
    events[2].message = events[2].message._replace(timestamp=-0.001)
    instant = await answer_all(site, events)
    assert [query.id for query in instant.queries] == ["0", "2"]
    (refused,) = [answer for answer in site.sent if answer["id"] == "1"]
    assert "too old" in refused["error"] and "asked at 20" in refused["error"]
    assert instant.counted == [refused["error"]] and not site.dead_letters


async def test_a_query_without_a_key_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    site = AgentSite()
    value = b'{"question": "q?", "stream": "s"}'
    await answer_all(site, [site.event(i, None, value) for i in range(3)])
    assert caplog.text.count("names its stream in a field and has no key") == 1
    caplog.clear()
    site = AgentSite()
    await answer_all(site, [site.event(i, "s", b"q?") for i in range(3)])
    assert "no key" not in caplog.text


@pytest.mark.guarantee("Kafka queries")
async def test_an_answer_too_large_for_its_topic_is_sent_without_its_evidences_texts() -> None:
    site, limit = AgentSite(), 4000
    evidence = (Evidence("s", 3, -0.1, 0, limit, "x" * limit),)

    class Large(InstantAnswering):
        async def answer(self, query: Query) -> Answer:
            return Answer(question="q?", answer="so it is", evidence=evidence)

    async def send(key: bytes | None, value: bytes) -> None:
        if len(value) > limit:
            raise MessageSizeTooLargeError("too large")
        await site.send(key, value)

    event = site.event(0, "s", b'{"id": "large", "question": "q?"}')
    agent = QueriesAgent(Settings(), Large(), send, site.dead_letter, Shutdown(60.0))  # type: ignore[arg-type]
    async with running(Service(agent, [event])):
        await until(lambda: site.acked == [event])
    [answer] = site.sent
    assert (answer["answer"], answer["truncated"]) == ("so it is", True)
    assert [(e["index"], e["text"]) for e in answer["evidence"]] == [(3, "")]
