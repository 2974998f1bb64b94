"""Consumer groups in Redis: for each topic that is read, which group reads it into this Redis.

Two groups that read the same topic into one Redis would take each other's partitions for ever. If
they read different topics, streams with the same name would be mixed.
"""

from collections.abc import Iterator, Mapping

from stream_app.errors import SettingsError
from stream_app.settings import Settings
from stream_app.settings.variables import variable
from stream_app.store.connection import AnyRedis
from stream_app.store.keys import Keys


async def note_group(redis: AnyRedis, settings: Settings) -> str:
    """Note that the group reads its topics; returns a warning, empty if there is none.

    Raises SettingsError if another group reads one of them into this Redis.
    """
    _check(await noted_groups(redis, settings), settings)  # a refused group notes nothing
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
    """Why a worker with these settings must not write to this Redis; empty if it may."""
    for topic in _topics(settings):
        if (group := noted.get(topic, settings.group)) != settings.group:
            key = Keys(settings.prefix).groups()
            return (
                f"Redis holds what group {group!r} read of {topic}; this worker is in group "
                f"{settings.group!r}: set {variable('prefix')} or another Redis for it. If "
                f"{group!r} no longer exists, `redis-cli del {key}` lets other groups take over"
            )
    return ""


def warning_of(noted: Mapping[str, str], settings: Settings) -> str:
    """The warning that streams of several groups may be mixed; empty if there is one group."""
    others = sorted({group for group in noted.values() if group != settings.group})
    if not others:
        return ""
    named = ", ".join(map(repr, others))
    return (
        f"Redis also holds streams of group {named}; this worker is in group {settings.group!r}, "
        f"and streams with the same name are mixed: set {variable('prefix')} or another Redis"
    )


def _topics(settings: Settings) -> Iterator[str]:
    """The topics whose partitions have an owner in Redis; a pattern counts as one topic."""
    yield from settings.tokens_topics or (settings.tokens_topic,)
    yield settings.questions_topic
