"""Topics: makes sure the broker is there and has the topics, before a worker joins.

Knows the broker's admin interface; not what the topics carry.
"""

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, TopicAlreadyExistsError

from stream_app.errors import UnreachableError
from stream_app.settings import Settings, variable


async def ensure_topics(settings: Settings) -> str:
    """Create the topics that are missing, with the broker's own defaults; returns its cluster id.

    A broker that cannot be asked to (librdkafka's mock) makes topics when they are first used.
    Raises UnreachableError when there is no broker.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.broker_address)
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
        there = set(await admin.list_topics())
        missing = [name for name in topic_names(settings) if name not in there]
        if missing:
            await admin.create_topics([NewTopic(name, -1, -1) for name in missing])
    except (IncompatibleBrokerVersion, TopicAlreadyExistsError):
        pass
    except (KafkaError, OSError) as error:
        raise UnreachableError(
            f"no Kafka broker at {settings.broker_address} ({type(error).__name__}): start one, "
            f"or name another with --broker or {variable('broker')}"
        ) from error
    finally:
        await admin.close()
    return str(cluster.get("cluster_id", ""))


def topic_names(settings: Settings) -> list[str]:
    """The five topics."""
    names = ("tokens", "questions", "queries", "answers", "dead_letters")
    return [getattr(settings, f"{name}_topic") for name in names]
