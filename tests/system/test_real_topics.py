"""Real producers, end to end: producer, Kafka, worker, Redis, answer. The producers of tests/cases
run unchanged, except for the name of their topic.
"""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from stream_app.client import client
from stream_app.embedded.process import free_port
from stream_app.embedded.services import Service
from tests.ingest.test_schema_registry import PAIR
from tests.support import registries, secured
from tests.support.producers import RECORD, Producer, messages
from tests.support.workers import Site, site

Fresh = Callable[[str], str]
CASES = Path(__file__).parents[1] / "cases"


@pytest.fixture
def place(
    durable_broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> Callable[..., Any]:
    """A function that makes a site on a real Kafka, with the given settings and a fresh prefix."""

    @asynccontextmanager
    async def made(**changes: Any) -> AsyncIterator[Site]:
        changes = {"prefix": fresh("prefix")} | changes
        async with site(durable_broker.url, redis_url, tmp_path, fresh, **changes) as here:
            yield here

    return made


async def produce(here: Site, case: str, topic: str) -> None:
    """Run a producer of tests/cases."""
    text = (CASES / case).read_text()
    assert repr(topic) in text
    text = text.replace(repr(topic), repr(here.settings.tokens_topic))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text, here.settings.broker_address
    )
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def text_of(here: Site, stream: str) -> str:
    """All text of a stream."""
    tail = (await here.store.load(stream)).tail
    segments = await here.store.segments(stream, 0, tail.index)
    text = ""
    for segment in [*segments, *here.engine.segmenter().flush(tail)]:
        text += segment.text[len(text) - segment.start :]
    return text


async def texts(here: Site, *streams: str) -> list[str]:
    return [await text_of(here, stream) for stream in streams]


async def read_to_the_end(here: Site, offsets: int) -> bool:
    """Whether all partitions of the topic are read: `offsets` in all."""
    topic = here.settings.tokens_topic
    partitions = await here.producer.partitions_for(topic)
    positions = await here.store.partitions.positions(
        [f"{topic}/{number}" for number in partitions]
    )
    return sum(position or 0 for position, _ in positions) == offsets


async def letters_of(here: Site, count: int) -> dict[bytes, list[str]]:
    """The reasons of the first `count` dead letters, by key."""
    found: dict[bytes, list[str]] = {}
    for _, value in await here.received("dead_letters", count):
        letter = json.loads(value)
        found.setdefault(base64.b64decode(letter["key"]), []).append(letter["reason"])
    return found


async def metric(port: int, name: str) -> float:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as reply,
    ):
        lines = (await reply.text()).splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


async def test_keys_and_avro_without_a_registry(place: Callable[..., Any]) -> None:
    async with place() as here:
        await produce(here, "keys_and_avro.py", "l.tokens")
        await here.start()
        await here.until(lambda: read_to_the_end(here, 23))
        letters = await letters_of(here, 10)
        hints = ["magic byte", "schema id 17", "XL3M_SCHEMA_REGISTRY", "xl3m-stream[registry]"]
        for key in (b"avro-1", b"proto"):
            assert all(hint in letters[key][0] for hint in hints)
        assert len(letters[b"avro-1"]) == 3
        [why] = letters[b"\0\0\0\0\x11\x0cuser-9"]
        assert all(hint in why for hint in ["the key", *hints, "XL3M_KEY_FORMAT"])
        assert "byte 3 is wrong; XL3M_ENCODING=replace" in letters[b"latin"][0]
        assert "UTF-16: decode it in the producer" in letters[b"utf16"][0]
        assert "gzip: decode it in the producer" in letters[b"gzip"][0]
        assert "2000 bytes" in letters[b"k" * 2000][0]
        assert "XL3M_KEY_FORMAT" in letters[b"\xff\xfe\x00\x80bin"][0]
        names = ["tomb", "k\nnewline", "\x1b[31mred", "emoji-🙂-é", "spaces in key"]
        said = ["record before the tombstone\n", "newline key\n", "ansi key\n"]
        assert await texts(here, *names) == [*said, "ünïcode 🙂 value\n", "x\n"]


async def test_keys_and_avro_with_a_registry(place: Callable[..., Any]) -> None:
    with registries.registry() as schemas:
        schemas.add("l.tokens-value", {"schema": json.dumps(PAIR)}, id=17)
        changes = {
            "input_format": "json",
            "text": "{level} {message}",
            "schema_registry": schemas.url,
        }
        async with place(**changes) as here:
            await produce(here, "keys_and_avro.py", "l.tokens")
            port = free_port()
            await here.start(port=port)
            await here.until(lambda: read_to_the_end(here, 23))
            lines = [f"ERROR pool closed by peer 10.9.8.{i}\n" for i in range(3)]
            assert await text_of(here, "avro-1") == "".join(lines)
            letters = await letters_of(here, int(await metric(port, "xl3m_dead_letters_total")))
            assert b"avro-1" not in letters and "schema id 17" in letters[b"proto"][0]


async def test_an_avro_key_names_its_stream(place: Callable[..., Any]) -> None:
    with registries.registry() as schemas:
        schemas.add("l.tokens-key", {"schema": json.dumps("string")}, id=17)
        async with place(schema_registry=schemas.url) as here:
            await produce(here, "keys_and_avro.py", "l.tokens")
            await here.start()
            await here.until(lambda: read_to_the_end(here, 23))
            assert await text_of(here, "user-9") == "avro key record\n"


@pytest.mark.guarantee("Dead letters")
async def test_tombstones_are_skipped_and_counted(place: Callable[..., Any]) -> None:
    async with place() as here:
        await produce(here, "tombstones.py", "l.tokens")
        port = free_port()
        await here.start(port=port)
        await here.until(lambda: read_to_the_end(here, 106))
        assert await text_of(here, "tomb") == "record before the tombstone\nafter\n"
        assert await text_of(here, "state-1") == "".join(f"state is {i}\n" for i in range(50))
        assert list(await letters_of(here, 1)) == [b"utf16"]
        assert await metric(port, "xl3m_skipped_records_total") == 53
        assert await metric(port, "xl3m_dead_letters_total") == 1
        assert await metric(port, "xl3m_missing_offsets") == 0
        log = (here.folder / "workers.log").read_text()
        assert "are missing" not in log and log.count(" offset ") == 1
        assert "never-seen" not in [s async for s in _names(here)]


async def _names(here: Site) -> AsyncIterator[str]:
    for name in await here.store.streams():
        yield name


async def test_json_schema_in_the_wire_format_needs_no_registry(place: Callable[..., Any]) -> None:
    names = {"text_field": "message", "key_field": "host.name"}
    async with place(input_format="json", **names) as here:
        await produce(here, "json_schema_wire.py", "n.tokens")
        await here.start()
        await here.until(lambda: read_to_the_end(here, 4))
        assert await texts(here, "k1", "web-2", "web-3", "k4") == [
            "json schema wire format\n",
            "flattened ecs\n",
            "only nested\n",
            "no host at all\n",
        ]


async def test_encoding_replace_reads_what_strict_refuses(place: Callable[..., Any]) -> None:
    async with place(encoding="replace") as here:
        await produce(here, "keys_and_avro.py", "l.tokens")
        await here.start()
        await here.until(lambda: read_to_the_end(here, 23))
        assert await text_of(here, "latin") == "Ger\ufffdt defekt\n"


@pytest.mark.guarantee("Event formats")
async def test_a_registry_that_is_away_is_waited_for_and_nothing_is_lost(
    place: Callable[..., Any], fresh: Fresh, tmp_path: Path
) -> None:
    """With TLS and a password, and Confluent's own serializers."""
    made, outer = secured.certificates(tmp_path / "tls"), messages()["acme.Outer"]
    with registries.registry() as schemas:
        producer = Producer(schemas.url)
        values = [
            producer.on("a").avro_with_reference(RECORD),
            producer.on("p").protobuf(outer(message="of protobuf")),
            producer.on("j").json({"message": "of JSON"}),
        ]
        producer.client.close()
    schemas.url = f"https://127.0.0.1:{free_port()}"
    schemas.auth = (secured.USER, secured.PASSWORD)
    changes = {"input_format": "json", "text_field": "message", "time_field": "at"}
    changes |= {"schema_registry": schemas.url, "schema_registry_ca": str(made.ca)}
    login = {"user": secured.USER, "password": secured.PASSWORD}
    changes |= {f"schema_registry_{name}": value for name, value in login.items()}
    async with place(**changes) as here:
        stream, port = fresh("stream"), free_port()
        await here.start(port=port)
        for value in values:
            await here.send("tokens", stream, value)
        await here.until(lambda: _waits(port))
        assert await read_to_the_end(here, 0)
        with registries.serving(schemas, made.server):
            await here.until(lambda: read_to_the_end(here, 3))
        assert await text_of(here, stream) == "pool closed\nof protobuf\nof JSON\n"
        log = (here.folder / "workers.log").read_text()
        assert "registry waits for the schema registry" in log and secured.PASSWORD not in log


async def _waits(port: int) -> bool:
    """Whether the worker's readiness names the registry that it waits for."""
    url = f"http://127.0.0.1:{port}/readyz"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            reasons = (await reply.json())["reasons"]
    except aiohttp.ClientError:
        return False
    return "XL3M_SCHEMA_REGISTRY does not answer" in reasons.get("step registry", "")


@pytest.mark.guarantee("Dead letters")
async def test_an_invalid_query_through_kafka_or_redis_gets_an_error(
    place: Callable[..., Any], fresh: Fresh
) -> None:
    """The queries of tests/cases' README, and of the project's own."""
    async with place(question_tokens=40) as here:
        stream = fresh("stream")
        await here.send("tokens", stream, b"web-1 fails")
        await here.start()
        await here.until(lambda: read_to_the_end(here, 1))
        wrong = [
            {"id": "p3", "stream": stream, "question": "which?", "window": "1h"},
            {"id": "p4", "stream": stream, "question": "which?", "k": 10},
            {"id": "p5", "stream": ["a", "b"], "question": "which?"},
        ]
        right = [
            {"id": 7, "stream": stream, "question": "which?"},
            {"id": "q1", "question": "Which host fails?"},
        ]
        for fields in [*wrong, *right]:
            await here.send("queries", stream, json.dumps(fields).encode())
        await here.send("queries", stream, b"")
        await here.send("queries", stream, b"Which host fails?")
        answers = [json.loads(value) for _, value in await here.received("answers", 6)]
        by_id = {answer["id"]: answer for answer in answers}
        assert "unknown field 'window'" in by_id["p3"]["error"]
        assert "unknown field 'k'" in by_id["p4"]["error"]
        assert "ask each stream" in by_id["p5"]["error"]
        assert {id for id, answer in by_id.items() if "error" not in answer} > {"7", "q1"}, str(
            by_id
        )
        assert len(await here.received("dead_letters", 3)) == 3
        async with here.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.psubscribe(here.store.keys.answer_channel("*"))
            await client.ensure_worker(here.store)
            query = {"id": fresh("q"), "stream": stream, "question": "which?", "window": "1h"}
            await here.redis.publish(here.store.keys.query_channel(), json.dumps(query).encode())
            async with asyncio.timeout(60):
                async for message in pubsub.listen():
                    answer = json.loads(message["data"])
                    if answer["id"] == query["id"]:
                        break
        assert "unknown field 'window'" in answer["error"]
