"""Topics: sees that the broker is there and has the topics, before anybody relies on it.

Topics that are missing are made by the broker's own rules, when it makes any. Knows the
broker's metadata; not what the topics carry.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import ClusterAuthorizationFailedError, IncompatibleBrokerVersion, KafkaError

from stream_app.errors import UnreachableError
from stream_app.kafka import auth, connection
from stream_app.settings import Settings

TOPICS = ("tokens", "questions", "queries", "answers", "dead_letters")
CREATION_SECONDS = 15.0
REQUEST_SECONDS = 40.0
_MAKES_TOPICS = "auto.create.topics.enable"
_MOCK_CLUSTER = "mockCluster"
"""How librdkafka's begins its id."""


@asynccontextmanager
async def open_admin(
    settings: Settings, seconds: float = REQUEST_SECONDS
) -> AsyncIterator[AIOKafkaAdminClient]:
    """A broker that answers, within so many seconds each time it is asked. Raises
    UnreachableError when it does not, or no longer, or does not let us in."""
    options = auth.kafka(settings)
    await connection.probe_broker(settings, options, seconds)
    admin = AIOKafkaAdminClient(**options, request_timeout_ms=round(seconds * 1000))
    try:
        await admin.start()
        yield admin
    except UnreachableError:  # an OSError too, and has said what is wrong
        raise
    except (KafkaError, OSError) as error:
        raise connection.unreachable(settings, error) from error
    finally:
        await admin.close()


async def ensure_topics(settings: Settings) -> str:
    """See that all topics are there, asking for those that are missing; returns the cluster's id.
    Of topics named by a pattern none is made.

    Raises UnreachableError when there is no broker, or it makes no topics by itself.
    """
    async with open_admin(settings) as admin:
        cluster = await admin.describe_cluster()
        missing = set(topic_names(settings)) - set(await admin.list_topics())
        if missing:
            await _ask_for(settings, sorted(missing))
    return str(cluster.get("cluster_id", ""))


async def partition_counts(settings: Settings) -> dict[str, int]:
    """How many partitions each of the topics has that are there; makes none.

    Raises UnreachableError when there is no broker.
    """
    async with open_admin(settings) as admin:
        known = await admin.describe_topics()
    counts = {topic["topic"]: len(topic["partitions"]) for topic in known}
    names = [*matches_pattern(settings, counts), *topic_names(settings)]
    return {name: counts[name] for name in names if name in counts}


async def auto_creates_topics(settings: Settings) -> bool:
    """Whether the broker makes topics by itself; False as well where it does not say.

    Raises UnreachableError when there is no broker.
    """
    async with open_admin(settings) as admin:
        cluster = await admin.describe_cluster()
        if str(cluster.get("cluster_id")).startswith(_MOCK_CLUSTER):
            return True
        broker = cluster["brokers"][0]["node_id"]
        asked = ConfigResource(ConfigResourceType.BROKER, str(broker), {_MAKES_TOPICS: None})
        try:
            (reply,) = await admin.describe_configs([asked])
        except (IncompatibleBrokerVersion, ClusterAuthorizationFailedError):
            return False
    entries = [entry for resource in reply.resources for entry in resource[4]]
    return any(entry[:2] == (_MAKES_TOPICS, "true") for entry in entries)


async def matching(settings: Settings) -> list[str]:
    """The topics that the pattern names, if they are named by one. Raises UnreachableError."""
    async with open_admin(settings) as admin:
        return matches_pattern(settings, await admin.list_topics())


def matches_pattern(settings: Settings, names: Iterable[str]) -> list[str]:
    """Those of the names that the pattern matches; neither the other topics nor Kafka's own."""
    pattern, others = settings.tokens_pattern, {*topic_names(settings)}
    if pattern is None:
        return []
    return sorted(
        name
        for name in names
        if pattern.match(name) and name not in others and not name.startswith("__")
    )


async def retained(settings: Settings) -> dict[str, tuple[int, int]]:
    """The first offset that the broker still has of each topic/partition of tokens, and the one
    that comes next. Raises UnreachableError when there is no broker."""
    consumer = AIOKafkaConsumer(**auth.kafka(settings))
    try:
        async with consumer, asyncio.timeout(REQUEST_SECONDS):
            counts = await partition_counts(settings)
            names = [*settings.tokens_topics, *matches_pattern(settings, counts)]
            partitions = [
                TopicPartition(name, number)
                for name in names
                for number in range(counts.get(name, 0))
            ]
            if not partitions:
                return {}
            starts = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
    except (KafkaError, TimeoutError) as error:
        raise UnreachableError(
            f"the broker at {settings.broker_address} does not say what it holds of "
            f"{settings.tokens_topic} "
            f"({type(error).__name__}): try again"
        ) from error
    return {f"{tp.topic}/{tp.partition}": (starts[tp], ends[tp]) for tp in partitions}


async def _ask_for(settings: Settings, missing: list[str]) -> None:
    """A broker that makes topics by itself makes those it is asked about."""
    async with AIOKafkaProducer(**auth.kafka(settings)) as producer:
        try:
            async with asyncio.timeout(CREATION_SECONDS):
                for name in missing:
                    await producer.partitions_for(name)
        except TimeoutError:
            raise UnreachableError(
                f"the broker has no topics {', '.join(missing)} and makes none by itself: create "
                "them, with as many partitions as workers will share"
            ) from None


def topic_names(settings: Settings) -> list[str]:
    """The topics that are named: all but those of a pattern."""
    others = [getattr(settings, f"{name}_topic") for name in TOPICS if name != "tokens"]
    return [*settings.tokens_topics, *others]
