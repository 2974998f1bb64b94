"""Events of real producers, through a real Kafka: with every preset into a real Redis, and through
complete workers to an answer.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis.asyncio import Redis

from stream_app.client import client
from stream_app.embedded.services import Service
from stream_app.events import Chunk
from stream_app.formats.presets import PRESETS
from stream_app.store.store import StreamStore
from tests.formats.test_presets import CASES, PRODUCED, RIGHT
from tests.ingest import test_tokens
from tests.support.decoding import decoded, decoder
from tests.support.fakes import PLENTY, Event, batch
from tests.support.workers import Site, site
from tests.system.test_bad_input import joined

Fresh = Callable[[str], str]


def events_of(preset: str) -> list[bytes]:
    """All test events for a preset."""
    files = [name for format, name, _ in RIGHT if format.removeprefix("json:") == preset]
    lines = [line for name in files for line in (CASES / name).read_bytes().splitlines()]
    return lines + [json.dumps(record).encode() for name, record, _ in PRODUCED if name == preset]


async def through_kafka(broker: str, topic: str, values: list[bytes]) -> list[Any]:
    """The values as records of a consumer."""
    address = broker.removeprefix("kafka://")
    async with AIOKafkaProducer(bootstrap_servers=address) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key=b"key", partition=0)
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest")
    async with consumer, asyncio.timeout(30):
        return [await consumer.getone() for _ in values]


async def assert_holds(here: test_tokens.Site, chunks: list[Chunk], prefix: str) -> None:
    """Assert that each stream equals its texts, segmented at once."""
    for stream in {chunk.stream for chunk in chunks}:
        text = "".join(chunk.text for chunk in chunks if chunk.stream == stream)
        tail, segments = batch(here.ingest.scorer.engine, text)
        found = await here.ingest.store.segments(prefix + stream, 0, PLENTY)
        assert [segment.text for segment in found] == [segment.text for segment in segments]
        kept = (await here.state(prefix + stream)).tail
        assert [unit.text for unit in kept.units] == [unit.text for unit in tail.units]
        assert kept.partial == tail.partial


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize("preset", PRESETS)
async def test_what_a_producer_writes_is_in_redis_as_it_was_meant(
    preset: str, durable_broker: Service, redis_client: Redis, fresh: Fresh
) -> None:
    store, topic, format = StreamStore(redis_client), fresh("t"), f"json:{preset}"
    here = await test_tokens.site(store, topic, 0, input_format=format)
    prefix = fresh("s")  # other tests have streams of the same names
    here.ingest.decoder = renamed(here.ingest.decoder, prefix)
    values = events_of(preset)
    records = await through_kafka(durable_broker.url, topic, values)
    events = [Event(record, here.acked) for record in records]
    await here.ingest.apply(events)
    assert here.acked == events and not here.letters
    made = decoder(input_format=format)
    await assert_holds(here, [c for value in values for c in decoded(made, value)[0]], prefix)


def renamed(decoder: Any, prefix: str) -> Any:
    """The decoder, with a prefix for the name of each stream."""
    decode = decoder.decode

    def decode_renamed(*event: Any, **at: Any) -> tuple[list[Chunk], str]:
        chunks, reason = decode(*event, **at)
        return [replace(chunk, stream=prefix + chunk.stream) for chunk in chunks], reason

    decoder.decode = decode_renamed
    return decoder


POD_LINES = b"""2026-11-30T10:00:00.1Z stdout F pump 7 is ok
2026-11-30T10:00:01.1Z stderr P pool closed
2026-11-30T10:00:01.2Z stderr F  by peer
"""
WHOLE: list[tuple[str, list[bytes], str]] = [
    ("cri", [POD_LINES], "pump 7 is ok\npool closed by peer\n"),
    (
        "otlp",
        [(CASES / "otlp.json").read_bytes().replace(b'"billing"', b'"STREAM"')],
        "request 1 done in 12 ms\npool closed by peer 10.9.8.7:5432\n",
    ),
    (
        "json:kubernetes",
        [
            line.replace(b"billing-7d9f-abcde", b"STREAM")
            for line in (CASES / "k8s.json").read_bytes().splitlines()[:2]
        ],
        "request 1 done in 12 ms\n"
        "E1130 10:00:01.223456       1 pool.go:42] pool closed by peer 10.9.8.7:5432\n",
    ),
]


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize(("format", "values", "text"), WHOLE, ids=[each[0] for each in WHOLE])
async def test_a_worker_answers_from_what_a_producer_writes(
    format: str,
    values: list[bytes],
    text: str,
    durable_broker: Service,
    redis_url: str,
    tmp_path: Path,
    fresh: Fresh,
) -> None:
    stream = fresh("stream")
    async with site(durable_broker.url, redis_url, tmp_path, fresh, input_format=format) as here:
        await here.start()
        for value in values:
            await here.send("tokens", stream, value.replace(b"STREAM", stream.encode()))
        await here.until(lambda: holds(here, stream, text))
        messages = [m async for m in client.ask(here.store, stream, "which pump?", 30)]
        [answer] = [m for m in messages if m["type"] == "answer"]
        assert await text_of(here, stream) == text
    assert answer["coverage"] == 1.0
    shown = [each["text"] for each in answer["evidence"]]
    assert shown and all(each in text for each in shown)


async def holds(here: Site, stream: str, text: str) -> bool:
    """Whether the stream has all of the text."""
    return (await here.store.load(stream)).tail.end >= len(text)


async def text_of(here: Site, stream: str) -> str:
    """All text of the stream."""
    tail = (await here.store.load(stream)).tail
    segments = await here.store.segments(stream, 0, tail.index)
    return joined([*segments, *here.engine.segmenter().flush(tail)])
