"""Transactions on the real Kafka: aborted records are skipped, markers are not missing offsets, and
the group reaches the end of a topic that ends with one. Offsets that are missing still count.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from stream_app.embedded.services import Service
from tests.kafka.test_records import (
    assert_alive,
    confluent,
    has_no_lag,
    is_asked,
    lag,
    log_of,
    one_partition,
    reads,
    text_of,
    with_changes,
)
from tests.support.workers import Site, site

Fresh = Callable[[str], str]


def transact(producer: Producer, topic: str, stream: str, *values: bytes, abort: bool) -> None:
    """Records in one transaction; they reach the broker even if it is aborted."""
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, key=stream.encode(), value=value)
    producer.flush(30)
    (producer.abort_transaction if abort else producer.commit_transaction)(30)


def transactional(here: Site, name: str) -> Producer:
    producer = confluent(here, **{"transactional.id": name})
    producer.init_transactions(30)
    return producer


async def position(here: Site, partition: str) -> int | None:
    return (await here.store.partitions.position(partition))[0]


@pytest.mark.guarantee("Unreadable records")
async def test_what_was_aborted_is_never_read_and_the_group_reaches_the_end(
    here: Site, fresh: Fresh
) -> None:
    topic, stream = fresh("tokens"), fresh("stream")
    await one_partition(here, topic)
    here = with_changes(here, tokens_topic=topic, group=fresh("group"))

    def write(begin: int) -> None:
        producer = transactional(here, fresh("tx"))
        for i in range(begin, begin + 3):
            transact(producer, topic, stream, b"committed %d\n" % i, abort=False)
            transact(producer, topic, stream, b"ABORTED password %d\n" % i, b"and", abort=True)

    await asyncio.to_thread(write, 0)
    worker = await here.start()
    await here.until(lambda: reads(here, stream, "committed 2"))
    await here.until(lambda: has_no_lag(here, topic))
    end = await position(here, f"{topic}/0")
    assert end == 15  # three of each: 1 + 1 record and mark, 2 + 1
    await here.stop(worker)
    await here.start()  # at a place where nothing but a mark was before
    await asyncio.to_thread(write, 3)  # each transaction is read as it is written
    await here.until(lambda: reads(here, stream, "committed 5"))
    await here.until(lambda: has_no_lag(here, topic))
    text = await text_of(here, stream)
    assert text == "".join(f"committed {i}\n" for i in range(6))
    assert (await here.store.load(stream)).cursor.gaps == 0
    assert "are missing" not in log_of(here)
    assert "ERROR" not in log_of(here)
    assert_alive(here)


@pytest.mark.parametrize("kind", ["questions", "queries"])
async def test_what_was_aborted_is_never_asked(kind: str, here: Site, fresh: Fresh) -> None:
    topic, stream = getattr(here.settings, f"{kind}_topic"), fresh("stream")
    await here.start()

    def write() -> None:
        producer = transactional(here, fresh("tx"))
        for question, is_aborted in (("aborted?", True), ("asked?", False)):
            fields = {"question": question} | ({"id": question} if kind == "queries" else {})
            transact(producer, topic, stream, json.dumps(fields).encode(), abort=is_aborted)

    await asyncio.to_thread(write)
    if kind == "queries":
        [(_, answer)] = await here.received("answers", 1)
        assert json.loads(answer)["id"] == "asked?"
    else:
        await here.until(lambda: is_asked(here, stream, "asked?"))
        assert not await is_asked(here, stream, "aborted?")
    await here.until(lambda: has_no_lag(here, topic))
    assert "are missing" not in log_of(here)
    assert_alive(here)


async def test_read_uncommitted_reads_all_and_counts_no_marker_as_missing(
    durable_broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    changes = {"isolation_level": "read_uncommitted"}
    async with site(durable_broker.url, redis_url, tmp_path, fresh, **changes) as here:
        topic, stream = here.settings.tokens_topic, fresh("stream")
        await here.start()

        def write() -> None:
            producer = transactional(here, fresh("tx"))
            transact(producer, topic, stream, b"one\n", abort=True)
            transact(producer, topic, stream, b"two\n", abort=False)

        await asyncio.to_thread(write)
        await here.until(lambda: reads(here, stream, "one\ntwo\n"))
        await here.until(lambda: has_no_lag(here, topic))
        assert "are missing" not in log_of(here)


@pytest.mark.guarantee("Unreadable records")
async def test_records_that_the_broker_lost_are_missing_offsets(here: Site, fresh: Fresh) -> None:
    topic, stream = fresh("tokens"), fresh("stream")
    await one_partition(here, topic)
    here = with_changes(here, tokens_topic=topic, group=fresh("group"))
    worker = await here.start()
    await here.send("tokens", stream, b"first\n")
    await here.until(lambda: has_no_lag(here, topic))
    await here.stop(worker)
    for i in range(5):
        await here.send("tokens", stream, b"dropped %d\n" % i)
    await asyncio.to_thread(drop, here, topic, 4)
    await here.start()
    await here.until(lambda: reads(here, stream, "dropped 4"))
    assert await text_of(here, stream) == "first\ndropped 3\ndropped 4\n"
    assert (await here.store.load(stream)).cursor.gaps == 3
    assert "offsets 1 to 3 are missing" in log_of(here)
    await here.until(lambda: has_no_lag(here, topic))
    assert await lag(here, topic) == 0


def drop(here: Site, topic: str, before: int) -> None:
    """Have the broker delete the records before an offset."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": here.settings.broker_address})
    for done in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        done.result()
