"""Redis groups: whose streams a Redis holds under a prefix, noted for each topic that is read.

Two groups that read one topic into one Redis would take each other's partitions for ever; of two
topics streams of one name would be mixed. Knows names of groups and topics; no Kafka.
"""

from collections.abc import Iterator, Mapping

from stream_app.errors import SettingsError
from stream_app.settings import Settings
from stream_app.settings.variables import variable
from stream_app.store.connection import AnyRedis
from stream_app.store.keys import Keys


async def note_group(redis: AnyRedis, settings: Settings) -> str:
    """Note that the group reads its topics, and return what is to be warned of, if anything is.

    Raises SettingsError if another group reads one of them into this Redis.
    """
    _check(await noted_groups(redis, settings), settings)  # a refused group leaves no note
    for topic in _topics(settings):
        await redis.hsetnx(Keys(settings.prefix).groups(), topic, settings.group)
    noted = await noted_groups(redis, settings)
    _check(noted, settings)  # another may have noted itself meanwhile
    return warning_of(noted, settings)


def _check(noted: Mapping[str, str], settings: Settings) -> None:
    if fault := fault_of(noted, settings):
        raise SettingsError(fault)


async def noted_groups(redis: AnyRedis, settings: Settings) -> dict[str, str]:
    """Of each topic the group that reads it into this Redis, under the settings' prefix."""
    noted = await redis.hgetall(Keys(settings.prefix).groups())
    return {topic.decode(): group.decode() for topic, group in noted.items()}


def fault_of(noted: Mapping[str, str], settings: Settings) -> str:
    """Why a worker of these settings must not write here; empty if it may."""
    for topic in _topics(settings):
        if (group := noted.get(topic, settings.group)) != settings.group:
            key = Keys(settings.prefix).groups()
            return (
                f"Redis holds what group {group!r} read of {topic}; this worker is of "
                f"{settings.group!r}: set {variable('prefix')} or another Redis for it. If "
                f"{group!r} is gone for good, `redis-cli del {key}` hands all over"
            )
    return ""


def warning_of(noted: Mapping[str, str], settings: Settings) -> str:
    """What may go wrong here; empty if nothing may."""
    others = sorted({group for group in noted.values() if group != settings.group})
    if not others:
        return ""
    named = ", ".join(map(repr, others))
    return (
        f"Redis also holds streams of group {named}; this worker is of {settings.group!r}, and "
        f"streams of one name are mixed: set {variable('prefix')} or another Redis"
    )


def _topics(settings: Settings) -> Iterator[str]:
    """Those whose partitions a group owns in Redis; a pattern stands for its topics."""
    yield from settings.tokens_topics or (settings.tokens_topic,)
    yield settings.questions_topic
