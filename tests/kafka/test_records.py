"""Records of all kinds on the real Kafka: compressed, damaged or aborted, each is read or reported,
and none ends a worker.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import ConfigResource as Resource  # type: ignore[attr-defined]

from stream_app.client import client
from stream_app.embedded.services import Service
from stream_app.events import decode
from stream_app.kafka import auth
from tests.support import raw
from tests.support.raw import Raw, produce
from tests.support.workers import Site, site
from tests.system.test_system import says

Fresh = Callable[[str], str]
CODECS = ("gzip", "snappy", "lz4", "zstd")


async def text_of(here: Site, stream: str) -> str:
    """The whole text that was read of a stream."""
    state = await here.store.load(stream)
    text = ""
    for segment in await here.store.segments(stream, 0, state.cursor.head):
        text = text[: segment.start] + segment.text
    text = text[: state.tail.start] + "".join(unit.text for unit in state.tail.units)
    return text + state.tail.partial


async def reads(here: Site, stream: str, text: str) -> bool:
    return text in await text_of(here, stream)


async def lag(here: Site, topic: str) -> int:
    """Lag as the broker's tools count it: ends of the partitions minus the group's offsets."""
    admin = AIOKafkaAdminClient(**auth.kafka(here.settings))
    await admin.start()
    try:
        committed = await admin.list_consumer_group_offsets(here.settings.group)
    finally:
        await admin.close()
    numbers = await here.producer.partitions_for(topic)
    ends = await ends_of(here, [TopicPartition(topic, number) for number in numbers])
    return sum(end - max(committed[tp].offset, 0) if tp in committed else end
               for tp, end in ends.items())  # fmt: skip


async def ends_of(here: Site, partitions: list[Any]) -> dict[Any, int]:
    async with AIOKafkaConsumer(**auth.kafka(here.settings)) as consumer:
        return dict(await consumer.end_offsets(partitions))


async def lags_by(here: Site, topic: str, count: int) -> bool:
    return await lag(here, topic) == count


async def has_no_lag(here: Site, topic: str) -> bool:
    return await lags_by(here, topic, 0)


def log_of(here: Site) -> str:
    return (here.folder / "workers.log").read_text()


def assert_alive(here: Site) -> None:
    """Except workers that were stopped."""
    assert all(worker.returncode in (None, 0) for worker in here.workers), log_of(here)[-3000:]


def confluent(here: Site, **more: Any) -> Producer:
    return Producer({"bootstrap.servers": here.settings.broker_address} | more)


async def one_partition(here: Site, topic: str, **configs: str) -> None:
    """Recreate the topic with settings of its own."""
    admin = AIOKafkaAdminClient(**auth.kafka(here.settings))
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=configs)])
    finally:
        await admin.close()


@pytest.mark.guarantee("Unreadable records")
@pytest.mark.parametrize("codec", CODECS)
async def test_compressed_records_are_read_from_all_three_topics(
    codec: str, here: Site, fresh: Fresh
) -> None:
    stream, settings = fresh("stream"), here.settings
    producer, key = confluent(here, **{"compression.type": codec}), stream.encode()
    question = {"question": "Which line?", "stream": stream}
    query = {"id": "q", "question": "which?" + " or another" * 50, "stream": stream}
    await here.start()
    for i in range(20):
        value = b"a line %d with some text that can be compressed\n" % i
        producer.produce(settings.tokens_topic, key=key, value=value)
    producer.produce(settings.questions_topic, key=key, value=json.dumps(question).encode())
    await asyncio.to_thread(producer.flush, 30)
    await here.until(lambda: reads(here, stream, "a line 19 with"))
    producer.produce(settings.queries_topic, key=key, value=json.dumps(query).encode())
    await asyncio.to_thread(producer.flush, 30)
    [(_, answer)] = await here.received("answers", 1)
    assert (decode(answer) or {})["id"] == "q"
    await here.until(lambda: is_asked(here, stream, "Which line?"))
    assert_alive(here)


async def is_asked(here: Site, stream: str, question: str) -> bool:
    known = await client.describe(here.store, stream)
    return question in {each["question"] for each in known["questions"]}


@pytest.mark.guarantee("Unreadable records")
async def test_what_topics_compress_by_themselves_is_read_of_all_of_them(
    here: Site, fresh: Fresh
) -> None:
    topics, stream = {fresh(codec): codec for codec in CODECS}, fresh("stream")
    for topic, codec in topics.items():
        await one_partition(here, topic, **{"compression.type": codec})
    here = with_changes(here, tokens_topic=",".join(topics))
    await here.start()
    for topic in topics:
        value = b"compressed into %s\n" % topic.encode() * 9
        await here.producer.send_and_wait(topic, value, key=stream.encode())
    for topic in topics:
        await here.until(lambda: reads(here, stream, f"into {topic}"))  # noqa: B023
        await here.until(lambda: has_no_lag(here, topic))  # noqa: B023


def with_changes(here: Site, **changes: Any) -> Site:
    """The same site with other settings."""
    return replace(here, settings=here.settings.replace(**changes), workers=here.workers)


ODD = [(b"trace\xff\xfe", b"1"), (b"plain", b"\xff"), (b"", None)]


@pytest.mark.guarantee("Unreadable records")
async def test_a_header_whose_name_is_not_text_does_no_harm_on_any_topic(
    here: Site, fresh: Fresh
) -> None:
    stream, settings = fresh("stream"), here.settings
    key = stream.encode()
    await here.start()
    for codec in raw.CODECS.values():
        line = Raw(b"codec %d\n" % codec, key, ODD)
        await produce(here.producer, settings.tokens_topic, raw.batch([line, line], codec))
    asked = Raw(b'{"question": "is it odd?"}', key, ODD)
    await produce(here.producer, settings.questions_topic, raw.batch([asked]))
    query = Raw(b'{"id": "q", "question": "is it?"}', key, ODD)
    await produce(here.producer, settings.queries_topic, raw.batch([query]))
    await here.until(lambda: reads(here, stream, "codec 4\ncodec 4"))
    await here.until(lambda: is_asked(here, stream, "is it odd?"))
    [(_, answer)] = await here.received("answers", 1)
    assert (decode(answer) or {})["id"] == "q"
    assert "are missing" not in log_of(here)
    assert_alive(here)


BOMB = 8 << 20


@pytest.mark.guarantee("Unreadable records")
async def test_a_batch_that_decompresses_beyond_the_limit_is_one_dead_letter(
    durable_broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    changes = {"max_batch_bytes": BOMB // 2}
    async with site(durable_broker.url, redis_url, tmp_path, fresh, **changes) as here:
        stream, topic = fresh("stream"), here.settings.tokens_topic
        key = stream.encode()
        await here.start()
        for codec in CODECS:
            bomb = raw.batch([Raw(b"x" * BOMB, key), Raw(b"y", key)], raw.CODECS[codec])
            await produce(here.producer, topic, bomb)
        await produce(here.producer, topic, raw.batch([Raw(b"goes on\n", key)]))
        await here.until(lambda: reads(here, stream, "goes on"))
        letters = [json.loads(v) for _, v in await here.received("dead_letters", len(CODECS))]
        assert sorted(letter["offset"] for letter in letters) == [0, 2, 4, 6]
        for letter in letters:
            assert "XL3M_MAX_BATCH_BYTES" in letter["reason"]
        assert any("offsets 0 to 1" in letter["reason"] for letter in letters)
        assert "are missing" not in log_of(here)
        await here.until(lambda: has_no_lag(here, topic))
        assert_alive(here)


def damage(here: Site, topic: str, mark: bytes) -> None:
    """Flip a bit in the broker's file."""
    admin = AdminClient({"bootstrap.servers": here.settings.broker_address})
    [resource] = admin.describe_configs([Resource("broker", "1")]).values()
    [folder] = resource.result()["log.dirs"].value.split(",")
    [segment] = Path(folder).glob(f"{topic}-0/*.log")
    data = bytearray(segment.read_bytes())
    data[data.index(mark)] ^= 1
    segment.write_bytes(data)


async def broken(here: Site, stream: str) -> None:
    """A batch of three records on the disk, the middle one of three batches, is damaged."""
    topic, key = here.settings.tokens_topic, stream.encode()
    for word in (b"before", b"broken", b"behind"):
        records = [Raw(b"%s %d\n" % (word, i), key) for i in range(3)]
        await produce(here.producer, topic, raw.batch(records))
    await asyncio.to_thread(damage, here, topic, b"broken 1")


@pytest.mark.guarantee("Unreadable records")
async def test_a_batch_damaged_on_the_brokers_disk_is_skipped_and_logged(
    here: Site, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await broken(here, stream)
    await here.start()
    await here.until(lambda: reads(here, stream, "behind 2"))
    assert "broken" not in await text_of(here, stream)
    [(_, value)] = await here.received("dead_letters", 1)
    letter = json.loads(value)
    assert (letter["offset"], letter["partition"]) == (3, 0)
    assert "checksum" in letter["reason"] and "offsets 3 to 5" in letter["reason"]
    await here.until(lambda: has_no_lag(here, here.settings.tokens_topic))
    worker = here.workers[0]
    await here.stop(worker)
    await here.start()
    await here.send("tokens", stream, b"after a restart\n")
    await here.until(lambda: reads(here, stream, "after a restart"))
    assert "are missing" not in log_of(here)
    assert (await here.store.load(stream)).cursor.gaps == 0


@pytest.mark.guarantee("Unreadable records")
async def test_a_partition_that_is_to_wait_waits_and_the_others_go_on(
    durable_broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh, unused_port: int
) -> None:
    changes = {"unreadable": "wait"}
    async with site(durable_broker.url, redis_url, tmp_path, fresh, **changes) as here:
        stream, other, topic = fresh("stream"), fresh("other"), here.settings.tokens_topic
        await broken(here, stream)
        await here.start(port=unused_port)
        await here.until(lambda: reads(here, stream, "before 2"))
        line = raw.batch([Raw(b"another partition\n", other.encode())])
        await produce(here.producer, topic, line, partition=1)
        await here.until(lambda: reads(here, other, "another partition"))
        assert "behind" not in await text_of(here, stream)
        waits = await readiness(unused_port)
        assert "waits at offset 3" in waits[f"{topic}/0"]
        log = here.folder / "workers.log"
        assert await says(log, "XL3M_UNREADABLE=skip")
        await asyncio.to_thread(damage, here, topic, b"broken 0")  # no better
        await here.until(lambda: lags_by(here, topic, 6))
        assert_alive(here)


@pytest.fixture
def unused_port() -> int:
    """For the worker's metrics and health."""
    from stream_app.embedded.process import free_port

    return free_port()


async def readiness(port: int) -> dict[str, str]:
    import aiohttp

    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}/readyz") as response,
    ):
        return dict((await response.json())["reasons"])
