"""The doctor: looks at everything a worker needs, and says what to mend.

It only looks: no topic is made and no key is written. Knows what has to be so; the parts
themselves say what is wrong with them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from redis.asyncio import Redis

from stream_app.client import connected
from stream_app.errors import SchemaError, SettingsError, UnreachableError
from stream_app.group import group_state
from stream_app.inflating import NAMES, missing_codecs
from stream_app.schema import check_schema
from stream_app.settings import Settings
from stream_app.terminal import say
from stream_app.topics import matched, partition_counts, topic_names
from xl3m_core.errors import XL3MError

Mark = Literal["ok", "WARN", "MEND"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: how it is, what was looked at, and what there is to say."""

    mark: Mark
    what: str
    said: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.what}: {self.said}"


def run(**given: Any) -> bool:
    """Print each finding as it comes; True if there is nothing to mend."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it says is said here
    well = True
    for finding in examine(**given):
        say(str(finding))
        well = well and finding.mark != "MEND"
    return well


def examine(**given: Any) -> Iterator[Finding]:
    """Everything there is to look at; given: settings, as of the command line."""
    try:
        settings = Settings.from_env(**given)
    except SettingsError as error:
        yield Finding("MEND", "settings", str(error))
        return
    yield Finding("ok", "settings", "all can be used")
    yield from asyncio.run(_all(redis_findings(settings)))
    yield from asyncio.run(_all(kafka_findings(settings)))
    yield model_finding(settings)


async def redis_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Does it answer, does it keep what it is given, and who wrote it?"""
    try:
        async with connected(settings.redis) as redis:
            for finding in _redis_info(await redis.info()):
                yield finding
            yield await _schema(redis)
    except (UnreachableError, SettingsError) as error:
        yield Finding("MEND", "Redis", str(error))


def _redis_info(info: dict[str, Any]) -> Iterator[Finding]:
    yield Finding("ok", "Redis", f"answers, version {info['redis_version']}")
    policy = info.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        yield Finding("ok", "Redis maxmemory-policy", policy)
    else:
        said = f"it is {policy}, so keys may vanish: set it to noeviction"
        yield Finding("MEND", "Redis maxmemory-policy", said)
    if info.get("aof_enabled"):
        yield Finding("ok", "Redis appendonly", "on")
    else:
        said = "it is off: a restart may lose what was read and asked, and Kafka is read again"
        yield Finding("WARN", "Redis appendonly", said)


async def _schema(redis: Redis) -> Finding:
    try:
        noted = await check_schema(redis)
    except SchemaError as error:
        return Finding("MEND", "schema", str(error))
    return Finding("ok", "schema", str(noted or "none noted yet, the first worker does"))


async def kafka_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Does it answer, and has it the topics?"""
    try:
        counts = await partition_counts(settings)
    except (UnreachableError, SettingsError) as error:
        yield Finding("MEND", "Kafka", str(error))
        return
    yield Finding("ok", "Kafka", f"answers at {settings.broker_address}")
    yield codecs_finding()
    tokens = [*settings.tokens_topics, *matched(settings, counts)]
    if not tokens:
        said = f"none matches {settings.tokens_topic} yet: a worker waits for one"
        yield Finding("WARN", "topics", said)
    for topic in [*tokens, *topic_names(settings)[len(settings.tokens_topics) :]]:
        yield _topic(topic, counts.get(topic, 0), topic in tokens)
    yield await _group(settings)


def codecs_finding() -> Finding:
    """Can all be read that producers compress with?"""
    if missing := missing_codecs():
        said = f"records compressed with {', '.join(missing)} cannot be read: install cramjam and "
        return Finding("MEND", "codecs", f"{said}zstandard")
    return Finding("ok", "codecs", f"can be read: {', '.join(NAMES.values())}")


async def _group(settings: Settings) -> Finding:
    """May a worker join it, and read the topics for it?"""
    what = f"group {settings.group}"
    try:
        return Finding("ok", what, await group_state(settings))
    except UnreachableError as error:
        return Finding("MEND", what, str(error))


def _topic(name: str, partitions: int, is_shared: bool) -> Finding:
    if not partitions:
        said = "it is missing: create it, or start a worker if the broker makes topics by itself"
        return Finding("MEND", f"topic {name}", said)
    shared = f", so {partitions} at most can share the work" if is_shared else ""
    return Finding("ok", f"topic {name}", f"partitions: {partitions}{shared}")


def model_finding(settings: Settings) -> Finding:
    """Does it load, and do the method's numbers fit its window?"""
    from stream_app.engine import create_engine

    try:
        engine = create_engine(settings)
    except XL3MError as error:
        return Finding("MEND", "model", str(error))
    method = engine.method
    said = f"window {engine.model.window}, segments of {method.segment_tokens} tokens, k {method.k}"
    return Finding("ok", "model", said)


async def _all(findings: AsyncIterator[Finding]) -> list[Finding]:
    return [finding async for finding in findings]
