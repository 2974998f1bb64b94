"""A tokens topic that is deleted and made again while its worker lives, on the real Kafka: the
worker reads the new topic from its first record, behind what the streams hold, and says so.
"""

import asyncio
from collections.abc import Callable

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from stream_app import access
from tests.test_kafka_edge import assert_alive, has_no_lag, log_of, text_of
from tests.workers import Site

Fresh = Callable[[str], str]


async def recreate(here: Site, topic: str, stream: str, lines: int) -> None:
    """Delete the topic, make it again, and write so many lines to it as soon as it is there."""
    admin = AIOKafkaAdminClient(**access.kafka(here.settings))
    await admin.start()
    try:
        await admin.delete_topics([topic])
        while True:
            made = await admin.create_topics([NewTopic(topic, 1, 1)])
            if for_code(made.topic_errors[0][1]) is not TopicAlreadyExistsError:
                break
            await asyncio.sleep(0.05)
    finally:
        await admin.close()
    await write(here, topic, stream, "new", lines)


async def write(here: Site, topic: str, stream: str, word: str, lines: int) -> None:
    for number in range(lines):
        value = f"{word} line {number}\n".encode()
        while True:
            try:
                await here.producer.send_and_wait(topic, value, key=stream.encode(), partition=0)
                break
            except UnknownTopicOrPartitionError:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("lines", [3, 30])
async def test_a_topic_recreated_under_a_living_worker_is_read_whole(
    here: Site, fresh: Fresh, lines: int
) -> None:
    topic, stream = here.settings.tokens_topic, fresh("stream")
    await write(here, topic, stream, "old", 8)
    await here.start()
    old = "".join(f"old line {i}\n" for i in range(8))

    async def holds(text: str) -> bool:
        return text == await text_of(here, stream)

    await here.until(lambda: holds(old))
    await here.until(lambda: has_no_lag(here, topic))
    await recreate(here, topic, stream, lines)
    new = "".join(f"new line {i}\n" for i in range(lines))
    await here.until(lambda: holds(old + new))
    assert topic in log_of(here) and "made again" in log_of(here)
    assert "never came" not in log_of(here)
    assert (await here.store.load(stream)).cursor.gaps == 0
    await here.until(lambda: has_no_lag(here, topic))
    assert_alive(here)
