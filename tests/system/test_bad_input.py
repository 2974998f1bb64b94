"""Bad input at every endpoint of a worker is rejected with a reason, odd input is kept unchanged,
and the next input is processed. With a real Redis and a fake model.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgpack
import pytest
from redis.asyncio import Redis

from stream_app.client import client
from stream_app.events import QUESTION_CHARS, decode, encode
from stream_app.ingest.partitions import Assignment
from stream_app.ingest.questions import QuestionsAgent
from stream_app.queries.kafka import QueriesAgent
from stream_app.runtime.shutdown import Shutdown
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.state import Commit, Committed
from stream_app.store.store import StreamStore
from tests.ingest.test_tokens import Site, site
from tests.support.fakes import (
    NOW,
    PLENTY,
    TP,
    Event,
    FakeBroker,
    HashEngine,
    Letters,
    Message,
    batch,
    until,
)
from tests.support.pubsub import PubSubClient, Worker, workers_on
from xl3m_core import Segment
from xl3m_core.segmenter import Segmenter

Fresh = Callable[[str], str]
MILLION = "q" * 1_000_000
TOO_LONG = f"1000000 characters, more than the {QUESTION_CHARS} allowed"
LIMIT = 1 << 20

# Odd, but valid as text and as names: no part of it may be interpreted.
ODD = [
    "a{b}c",
    " a b ",
    "\x00\x1b[2J\r",
    "../../etc/passwd",
    "%2e%2e/%00",
    "*?[x]",
    "</s><s>",
    "é" * 128,
]


def nested(levels: int) -> bytes:
    return b'{"text":' + b"[" * levels + b"]" * levels + b"}"


BAD_TOKENS: dict[str, list[tuple[bytes, str]]] = {
    "lines": [
        (b"\xff\xfe", "not UTF-8: byte 0"),
        ("half \ud800".encode("utf-8", "surrogatepass"), "not UTF-8: byte 5"),
        (b"x" * (LIMIT + 1), "1048577 bytes, more than the 1048576 allowed"),
    ],
    "json": [
        (nested(200_000), "nested too deeply"),
        (b'{"text": "x", "time": ' + b"9" * 5000 + b"}", "is not json"),
        (b'{"schema": 99, "body": "x"}', "'text' is missing: XL3M_TEXT_FIELD"),
        (b'{"text": "caf\xe9"}', "is not UTF-8: byte 13"),
        (b'"text"', "a JSON string, not an object"),
        (b"42", "a JSON number, not an object"),
        (b"true", "a JSON boolean, not an object"),
        (b"[[1]]", "a JSON array, not an object"),
        (b"plain", "is not json"),
        (b"\x81\xa4text\xa1x", "not a json map"),
        (b"[" + b"{}," * 100_000 + b"{}]", "more than 100000 records"),
        (b"x\n" * 50_000, "is not json"),
    ],
    "msgpack": [
        (b"\x81\xa4text" + b"\x91" * 200_000 + b"\xc0", "not msgpack"),
        (b"\x81\xa4text\xa4\xed\xa0\x80x", "not msgpack"),
        (b"\x81\xa4text\xdb\xff\xff\xff\xff", "not msgpack"),
        (msgpack.packb({"ids": [-1]}), "list of token ids"),
        (msgpack.packb({"ids": [2**64 - 1]}), "list of token ids"),
        (msgpack.packb({"ids": [1.5, True]}), "list of token ids"),
    ],
}
# Odd events that lose no text.
ODD_EVENTS = {
    nested(500): "[" * 500 + "]" * 500 + "\n",
    b'{"text": "half \\ud800"}': "half \N{REPLACEMENT CHARACTER}\n",
    b'{"text": "x", "time": NaN}': "x\n",
    b'{"text": "x", "time": -Infinity}': "x\n",
    b'{"text": "x", "time": 1e999}': "x\n",
    b'{"text": "x", "time": -1}': "x\n",
    b'{"text": "x", "time": ' + b"9" * 4000 + b"}": "x\n",
    b'{"text": "x", "time": "1969-12-31"}': "x\n",
    b'{"text": "x", "text": 7}': "7\n",
    b'{"text": null}': "",
    b'{"text": ""}': "",
    b"null": "",
    b"[]": "",
    b"": "",
}
GOOD = {"lines": b"good", "json": b'{"text": "good"}', "msgpack": msgpack.packb({"text": "good\n"})}


@pytest.mark.guarantee("Dead letters")
@pytest.mark.parametrize("format", BAD_TOKENS)
async def test_bad_tokens_are_dead_letters_with_their_reason(
    format: str, redis_client: Redis, fresh: Fresh
) -> None:
    store = StreamStore(redis_client)
    here = await site(store, fresh("topic"), 0, input_format=format, max_event_bytes=LIMIT)
    values = [*(value for value, _ in BAD_TOKENS[format]), GOOD[format]]
    events = [here.event(i, value) for i, value in enumerate(values)]
    await here.ingest.apply(events)
    assert [event for event, _ in here.letters] == events[:-1]
    for (_, said), (_, reason) in zip(here.letters, BAD_TOKENS[format], strict=True):
        assert reason in said
    assert here.acked == events
    assert (await here.state()).tail.end == len("good\n")


async def test_odd_events_lose_no_text(redis_client: Redis, fresh: Fresh) -> None:
    here = await site(StreamStore(redis_client), fresh("topic"), 0, input_format="json")
    events = [here.event(i, value) for i, value in enumerate(ODD_EVENTS)]
    await here.ingest.apply(events)
    assert not here.letters
    assert here.acked == events
    assert await _text_of(here) == "".join(ODD_EVENTS.values())


@pytest.mark.guarantee("Dead letters")
async def test_a_stream_name_is_kept_exactly_up_to_its_limit(
    redis_client: Redis, fresh: Fresh
) -> None:
    here = await site(StreamStore(redis_client), fresh("topic"), 0)
    names = [fresh("")[1:] + odd for odd in ODD[:-1]] + [fresh("")[:13] + "x" * 243]
    assert len(names[-1].encode()) == 256
    events = [here.event(i, f"of {i}".encode(), name.encode()) for i, name in enumerate(names)]
    bad = [here.event(len(names), b"x", (names[-1] + "y").encode())]
    bad += [here.event(len(names) + 1, b"x", b"\xff")]
    await here.ingest.apply([*events, *bad])
    for i, name in enumerate(names):
        assert _end(await here.state(name)) == f"of {i}\n"
        assert keys.log(name).count("{") == keys.log(name).count("}") == 1
    reasons = [reason for _, reason in here.letters]
    assert ["257 bytes, more than the 256" in reasons[0], "not UTF-8" in reasons[1]] == [True] * 2


def _end(state: Any) -> str:
    return "".join(unit.text for unit in state.tail.units) + str(state.tail.partial)


@pytest.mark.guarantee("Dead letters")
async def test_odd_text_is_kept_exactly(redis_client: Redis, fresh: Fresh) -> None:
    store = StreamStore(redis_client)
    here = await site(store, fresh("topic"), 0, input_format="json")
    values = [json.dumps({"text": odd}) for odd in ODD]
    values += ['{"text": "first", "text": "the last of two counts", "schema": 99}']
    await here.ingest.apply([here.event(i, v.encode()) for i, v in enumerate(values)])
    assert not here.letters
    whole = "".join(f"{odd}\n" for odd in ODD) + "the last of two counts\n"
    assert await _text_of(here) == whole


async def _text_of(here: Site) -> str:
    """All text of the stream, from its segments and its tail."""
    tail = (await here.state()).tail
    segments = list[Segment]()
    for first in range(0, tail.index, 10_000):
        segments += await here.ingest.store.segments(
            here.topic, first, min(first + 10_000, tail.index)
        )
    return joined([*segments, *here.ingest.segmenter.flush(tail)])


def joined(segments: list[Segment]) -> str:
    """The text that the segments cover."""
    parts, end = list[str](), 0
    for segment in segments:
        assert segment.start <= end < segment.end
        parts.append(segment.text[end - segment.start :])
        end = segment.end
    return "".join(parts)


@pytest.mark.parametrize(("record", "events"), [("x", 10), ("気\x00 ", 1), ("\n", 1), (" ", 1)])
async def test_megabytes_of_one_thing_are_a_stream_like_any_other(
    record: str, events: int, redis_client: Redis, fresh: Fresh
) -> None:
    store = StreamStore(redis_client)
    here = await site(store, fresh("topic"), 0, input_format="msgpack")
    segmenter = here.ingest.segmenter = Segmenter(Letters().count_tokens, 90, 10)
    piece = (record * 1_000_000)[: 1_000_000 // len(record.encode()) * len(record)]
    for i in range(events):
        await here.ingest.apply([here.event(i, msgpack.packb({"text": piece}))])
        tail = (await here.state()).tail
        assert len(tail.partial) < segmenter.max_line_chars
        assert sum(unit.tokens for unit in tail.units) <= 90
    assert not here.letters
    assert await _text_of(here) == piece * events


async def test_an_empty_text_changes_nothing_but_the_position(
    redis_client: Redis, fresh: Fresh
) -> None:
    here = await site(StreamStore(redis_client), fresh("topic"), 0, input_format="msgpack")
    events = [here.event(i, msgpack.packb({"text": text})) for i, text in enumerate(["a", "", "b"])]
    await here.ingest.apply(events)
    assert (here.acked, here.letters) == (events, [])
    assert _end(await here.state()) == "ab"


BAD_QUESTIONS = [
    (MILLION.encode(), TOO_LONG),
    (encode({"question": MILLION}), TOO_LONG),
    (encode({"question": MILLION}, as_json=False), TOO_LONG),
    (b"\xff", "not UTF-8"),
    (b'{"question": "\\ud800"}', "lone surrogate"),
    (b'{"question":' + b"[" * 200_000, "nested too deeply"),
    (b"\x81\xa8question" + b"\x91" * 200_000 + b"\xc0", "not msgpack"),
    (b'{"question": "q?", "stream": "' + b"x" * 257 + b'"}', "257 bytes, more than the 256"),
    (b'{"question": "q?", "stream": 7}', "no stream"),
    (b'{"question": ["q?"]}', "'question' must be str"),
    (b'["q?"]', "is JSON, but a list"),
    (b" \n ", "the question is empty"),
    (b"x" * (LIMIT + 1), "1048577 bytes, more than the 1048576 allowed"),
]
BAD_QUERIES = [
    *BAD_QUESTIONS,
    (b'{"question": "q?", "deadline": NaN}', "seconds from 0 to 90"),
    (b'{"question": "q?", "deadline": -1}', "seconds from 0 to 90"),
    (b'{"question": "q?", "deadline": 1e999}', "seconds from 0 to 90"),
    (b'{"question": "q?", "deadline": ' + b"9" * 4000 + b"}", "seconds from 0 to 90"),
    (b'{"question": "q?", "id": "' + b"x" * 257 + b'"}', "1 to 256 bytes"),
    (b'{"question": "q?", "id": true}', "'id' must be a text or a number"),
    (b'{"question": "q?", "window": "1h"}', "unknown field 'window'"),
]


class AgentInputs:
    """Events for an agent, and their acknowledgements, dead letters and answers."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.acked: list[Event] = []
        self.letters: list[str] = []
        self.sent: list[dict[str, Any]] = []

    async def send_dead_letter(self, event: Any, reason: str) -> None:
        self.letters.append(reason)

    async def send(self, key: bytes | None, value: bytes) -> None:
        self.sent.append(decode(value))

    async def events(self, values: list[bytes]) -> AsyncIterator[Event]:
        for i, value in enumerate(values):
            yield Event(Message(self.stream, 0, i, NOW, self.stream.encode(), value), self.acked)


def assert_reasons(said: list[str], wanted: list[tuple[bytes, str]]) -> None:
    for reason, (_, part) in zip(said, wanted, strict=True):
        assert part in reason


@pytest.mark.guarantee("Dead letters")
async def test_bad_questions_are_dead_letters_and_the_next_is_set(
    redis_client: Redis, fresh: Fresh
) -> None:
    store, inputs = StreamStore(redis_client), AgentInputs(fresh("s"))
    scoring = Scorer(HashEngine(), store, PLENTY)
    partitions, tp = Assignment(store, inputs.stream), TP(inputs.stream, 0)
    await partitions.assign([tp], FakeBroker({tp: 0}, {tp: 0}))
    questions = QuestionsAgent(Settings(), partitions, scoring, inputs.send_dead_letter)
    last = ("</s>" + ODD[3]).encode()
    values = [*(value for value, _ in BAD_QUESTIONS), last]
    async with redis_client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(keys.update_channel(inputs.stream))
        await questions.run(inputs.events([*values, b"x" * 100]))
        async for message in pubsub.listen():  # also errors of earlier events with a known stream
            if (update := decode(message["data"]))["question"] == "x" * 100:
                break
    assert len(inputs.acked) == len(values) + 1
    assert_reasons(inputs.letters, [*BAD_QUESTIONS, (b"", "107 tokens")])
    assert "the method leaves it 40" in update["error"]
    questions_ = await store.questions.load(inputs.stream)
    assert [each.question.encode() for each in questions_.values()] == [last]


@pytest.fixture
async def one(redis_url: str) -> AsyncIterator[PubSubClient]:
    """A client of one worker's pub/sub endpoint."""
    async with workers_on(redis_url, 1) as client_:
        client_.workers[0].server.settings = Settings()
        yield client_


@pytest.fixture
async def stream(redis_client: Redis, fresh: Fresh) -> str:
    """A stream with a few lines."""
    name, engine = fresh("stream"), HashEngine()
    store = StreamStore(redis_client)
    tail, segments = batch(engine, "one pump\ntwo pumps\nthree")
    base = await store.load(name)
    partition = fresh("topic") + "/0"
    (result,) = await store.commit([Commit(name, base, segments, tail, partition, 1, 1)])
    assert isinstance(result, Committed)
    return name


@pytest.mark.guarantee("Dead letters")
@pytest.mark.guarantee("Kafka queries")
async def test_bad_queries_are_dead_letters_and_the_next_is_answered(
    one: PubSubClient, stream: str
) -> None:
    worker: Worker = one.workers[0]
    inputs = AgentInputs(stream)
    queries = QueriesAgent(
        Settings(),
        worker.server.publisher.answering,
        inputs.send,
        inputs.send_dead_letter,
        Shutdown(60.0),
    )
    values = [*(value for value, _ in BAD_QUERIES), encode({"id": "../{x}\x00", "question": "q?"})]

    running = asyncio.create_task(queries.run(inputs.events(values)))
    await until(lambda: len(inputs.acked) == len(values) or running.done())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [event.message.offset for event in inputs.acked] == [*range(len(values))]
    for _, part in BAD_QUERIES:
        assert any(part in reason for reason in inputs.letters)
    assert len(inputs.letters) == len(BAD_QUERIES)
    [answer] = inputs.sent
    assert (answer["id"], answer["answer"].split()[0]) == ("../{x}\x00", "q?")


@pytest.mark.guarantee("Pub/sub queries")
async def test_bad_queries_through_pubsub_get_a_reason_and_the_next_is_answered(
    one: PubSubClient, stream: str, fresh: Fresh
) -> None:
    queries = [(v, r) for v, r in BAD_QUERIES if v[:13] == b'{"question": ' and b'"id"' not in v]
    assert len(queries) > 6
    for value, reason in queries:
        name = fresh("query")
        stream_ = b"" if b'"stream"' in value else b'"stream": "%s", ' % stream.encode()
        await one.ask(b'{"id": "%s", ' % name.encode() + stream_ + value[1:])
        answered, data = await one.next_answer()
        assert answered == name and reason in decode(data)["error"]
    last = fresh("../{x} \x00")
    await one.ask({"id": last, "stream": stream, "question": "q?"})
    assert "error" not in decode((await one.next_answer())[1])


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_million_characters_through_the_client_are_refused_with_both_numbers(
    one: PubSubClient, stream: str
) -> None:
    [answer] = [each async for each in client.ask(one.store, stream, MILLION, 1.0)]
    assert TOO_LONG in answer["error"]
