"""Topics: checks that the broker answers and has the topics, and reads their metadata.

Missing topics are created by the broker with its own defaults, if it creates topics automatically.
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
_AUTO_CREATE = "auto.create.topics.enable"
_MOCK_CLUSTER = "mockCluster"
"""Start of the cluster id of librdkafka's mock broker."""


@asynccontextmanager
async def open_admin(
    settings: Settings, seconds: float = REQUEST_SECONDS
) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client that is connected; `seconds` limits each request. Raises UnreachableError if
    the broker does not answer, now or in the `with` block, or refuses access."""
    options = auth.kafka(settings)
    await connection.probe_broker(settings, options, seconds)
    admin = AIOKafkaAdminClient(**options, request_timeout_ms=round(seconds * 1000))
    try:
        await admin.start()
        yield admin
    except UnreachableError:  # it is an OSError too, and has its advice already
        raise
    except (KafkaError, OSError) as error:
        raise connection.unreachable(settings, error) from error
    finally:
        await admin.close()


async def ensure_topics(settings: Settings) -> str:
    """Create missing topics, except those named by a pattern; returns the cluster's id.

    Raises UnreachableError if there is no broker, or it does not create topics automatically.
    """
    async with open_admin(settings) as admin:
        cluster = await admin.describe_cluster()
        missing = set(topic_names(settings)) - set(await admin.list_topics())
        if missing:
            await _create(settings, sorted(missing))
    return str(cluster.get("cluster_id", ""))


async def partition_counts(settings: Settings) -> dict[str, int]:
    """The number of partitions of each existing topic; creates none.

    Raises UnreachableError if there is no broker.
    """
    async with open_admin(settings) as admin:
        known = await admin.describe_topics()
    counts = {topic["topic"]: len(topic["partitions"]) for topic in known}
    names = [*matches_pattern(settings, counts), *topic_names(settings)]
    return {name: counts[name] for name in names if name in counts}


async def auto_creates_topics(settings: Settings) -> bool:
    """Whether the broker creates topics automatically; False if it does not tell.

    Raises UnreachableError if there is no broker.
    """
    async with open_admin(settings) as admin:
        cluster = await admin.describe_cluster()
        if str(cluster.get("cluster_id")).startswith(_MOCK_CLUSTER):
            return True
        broker = cluster["brokers"][0]["node_id"]
        resource = ConfigResource(ConfigResourceType.BROKER, str(broker), {_AUTO_CREATE: None})
        try:
            (reply,) = await admin.describe_configs([resource])
        except (IncompatibleBrokerVersion, ClusterAuthorizationFailedError):
            return False
    entries = [entry for described in reply.resources for entry in described[4]]
    return any(entry[:2] == (_AUTO_CREATE, "true") for entry in entries)


async def matching(settings: Settings) -> list[str]:
    """The topics that match the configured pattern; none without a pattern. Raises
    UnreachableError."""
    async with open_admin(settings) as admin:
        return matches_pattern(settings, await admin.list_topics())


def matches_pattern(settings: Settings, names: Iterable[str]) -> list[str]:
    """The names that the pattern matches, without Kafka's internal and our other topics."""
    pattern, others = settings.tokens_pattern, {*topic_names(settings)}
    if pattern is None:
        return []
    return sorted(
        name
        for name in names
        if pattern.match(name) and name not in others and not name.startswith("__")
    )


async def retained(settings: Settings) -> dict[str, tuple[int, int]]:
    """The first offset and the end of each topic/partition of the tokens topics. Raises
    UnreachableError if there is no broker."""
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
            f"the broker at {settings.broker_address} does not tell the offsets of "
            f"{settings.tokens_topic} "
            f"({type(error).__name__}): try again"
        ) from error
    return {f"{tp.topic}/{tp.partition}": (starts[tp], ends[tp]) for tp in partitions}


async def _create(settings: Settings, missing: list[str]) -> None:
    """Request the topics' metadata: a broker with automatic creation then creates them."""
    async with AIOKafkaProducer(**auth.kafka(settings)) as producer:
        try:
            async with asyncio.timeout(CREATION_SECONDS):
                for name in missing:
                    await producer.partitions_for(name)
        except TimeoutError:
            raise UnreachableError(
                f"the broker has no topics {', '.join(missing)} and does not create topics "
                "automatically: create them, with as many partitions as workers will share"
            ) from None


def topic_names(settings: Settings) -> list[str]:
    """The topics with configured names, without those of a pattern."""
    others = [getattr(settings, f"{name}_topic") for name in TOPICS if name != "tokens"]
    return [*settings.tokens_topics, *others]
