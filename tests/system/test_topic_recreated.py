"""A tokens topic that is deleted and recreated while its worker runs, on a real Kafka: the worker
reads the new topic from its first record, appends it to the streams, and logs a warning.
"""

import asyncio
import json
from collections.abc import Callable

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError

from stream_app.kafka import auth
from tests.kafka.test_records import assert_alive, has_no_lag, log_of, text_of
from tests.support.workers import Site

Fresh = Callable[[str], str]
PARTITIONS = 4
"""As in topics that the broker creates automatically."""


async def recreate(here: Site, topic: str) -> None:
    """Delete the topic and create it again."""
    admin = AIOKafkaAdminClient(**auth.kafka(here.settings))
    await admin.start()
    try:
        await admin.delete_topics([topic])
        # The worker may have created it meanwhile, by requesting its metadata.
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    finally:
        await admin.close()


async def write(here: Site, topic: str, stream: str, word: str, lines: int) -> None:
    for number in range(lines):
        await put(here, topic, stream, f"{word} line {number}\n".encode())


async def put(here: Site, topic: str, stream: str, value: bytes) -> None:
    """Send a record as soon as the topic exists."""
    while True:
        try:
            await here.producer.send_and_wait(topic, value, key=stream.encode(), partition=0)
            return
        except UnknownTopicOrPartitionError:
            await asyncio.sleep(0.1)


@pytest.mark.guarantee("Recreated topics")
async def test_a_queries_topic_recreated_under_a_living_worker_is_read_whole(
    here: Site, fresh: Fresh
) -> None:
    topic, stream = here.settings.queries_topic, fresh("stream")
    await here.start()
    await here.send("tokens", stream, b"all is well\n")
    for number in range(8):
        await ask(here, stream, f"old {number}")
    await here.received("answers", 8)
    await here.until(lambda: has_no_lag(here, topic))
    await recreate(here, topic)
    for number in range(3):
        await ask(here, stream, f"new {number}")
    answers = [json.loads(value)["id"] for _, value in await here.received("answers", 11)]
    assert {"new 0", "new 1", "new 2"} <= {*answers}

    async def is_said() -> bool:
        return f"topic {topic} was recreated" in log_of(here)

    await here.until(is_said)
    assert_alive(here)


async def ask(here: Site, stream: str, id: str) -> None:
    query = {"id": id, "question": "is it?", "stream": stream}
    await put(here, here.settings.queries_topic, stream, json.dumps(query).encode())


@pytest.mark.guarantee("Recreated topics")
@pytest.mark.parametrize("lines", [3, 30])
async def test_a_topic_recreated_under_a_living_worker_is_read_whole(
    here: Site, fresh: Fresh, lines: int
) -> None:
    topic, stream = here.settings.tokens_topic, fresh("stream")
    await write(here, topic, stream, "old", 8)
    await here.start()
    old = "".join(f"old line {i}\n" for i in range(8))

    async def holds(text: str) -> bool:
        """Whether all of the text is there. Records read at the old position may come twice."""
        held = await text_of(here, stream)
        return held.startswith(old) and held.endswith(text)

    await here.until(lambda: holds(old))
    await here.until(lambda: has_no_lag(here, topic))
    await recreate(here, topic)
    await write(here, topic, stream, "new", lines)
    new = "".join(f"new line {i}\n" for i in range(lines))
    await here.until(lambda: holds(new))
    assert f"{topic}/0: the topic was deleted and recreated. 8 offsets were" in log_of(here)
    assert "are missing" not in log_of(here)
    assert (await here.store.load(stream)).cursor.gaps == 0
    await here.until(lambda: has_no_lag(here, topic))
    assert_alive(here)
