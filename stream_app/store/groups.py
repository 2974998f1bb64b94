"""Groups: which consumer group reads each topic into a Redis, noted there under the prefix.

Two groups that read the same topic into one Redis would fence each other's partitions without end.
Two groups that read different topics would mix streams of the same name.
"""

from collections.abc import Iterator, Mapping

from stream_app.errors import SettingsError
from stream_app.settings import Settings
from stream_app.settings.variables import variable
from stream_app.store.connection import AnyRedis
from stream_app.store.keys import Keys


async def note_group(redis: AnyRedis, settings: Settings) -> str:
    """Note that the group reads its topics; returns a warning, or "".

    Raises SettingsError if another group reads one of them into this Redis.
    """
    _check(await noted_groups(redis, settings), settings)  # a refused group leaves no note
    for topic in _topics(settings):
        await redis.hsetnx(Keys(settings.prefix).groups(), topic, settings.group)
    noted = await noted_groups(redis, settings)
    _check(noted, settings)  # another group may have noted itself meanwhile
    return warning_of(noted, settings)


def _check(noted: Mapping[str, str], settings: Settings) -> None:
    if fault := fault_of(noted, settings):
        raise SettingsError(fault)


async def noted_groups(redis: AnyRedis, settings: Settings) -> dict[str, str]:
    """The group that reads each topic into this Redis, under the settings' prefix."""
    noted = await redis.hgetall(Keys(settings.prefix).groups())
    return {topic.decode(): group.decode() for topic, group in noted.items()}


def fault_of(noted: Mapping[str, str], settings: Settings) -> str:
    """Why a worker with these settings must not write here; empty if it may."""
    for topic in _topics(settings):
        if (group := noted.get(topic, settings.group)) != settings.group:
            key = Keys(settings.prefix).groups()
            return (
                f"Redis holds what group {group!r} read of {topic}; this worker is of "
                f"{settings.group!r}: give it another {variable('prefix')} or another Redis. If "
                f"{group!r} no longer runs, `redis-cli del {key}` lets this group take over"
            )
    return ""


def warning_of(noted: Mapping[str, str], settings: Settings) -> str:
    """A warning that streams may be mixed; empty if there is no other group."""
    others = sorted({group for group in noted.values() if group != settings.group})
    if not others:
        return ""
    named = ", ".join(map(repr, others))
    return (
        f"Redis also holds streams of group {named}; this worker is of {settings.group!r}, and "
        f"streams of the same name are mixed: set another {variable('prefix')} or another Redis"
    )


def _topics(settings: Settings) -> Iterator[str]:
    """The topics whose partitions a group owns in Redis. A pattern is noted as it is."""
    yield from settings.tokens_topics or (settings.tokens_topic,)
    yield settings.questions_topic
