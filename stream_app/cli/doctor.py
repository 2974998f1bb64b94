"""The doctor: looks at everything a worker needs, and says what to mend.

It only looks: no topic is made and no key is written. Knows what has to be so; the parts
themselves say what is wrong with them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stream_app.cli.output import echo
from stream_app.errors import RegistryError, SchemaError, SettingsError, UnreachableError
from stream_app.ingest.schema_registry import Registry
from stream_app.kafka.decompression import NAMES, missing_codecs
from stream_app.kafka.group_check import group_state
from stream_app.kafka.topics import (
    auto_creates_topics,
    matches_pattern,
    partition_counts,
    topic_names,
)
from stream_app.settings import Settings, unknown_variables
from stream_app.store import groups, server_check
from stream_app.store.connection import AnyRedis, open_redis
from stream_app.store.keys import Keys
from stream_app.store.schema import check_schema
from xl3m_core.errors import XL3MError

PARTITIONS = 4
"""Of a topic in the command that the doctor names: as many workers can share it."""
if TYPE_CHECKING:
    from xl3m_core import Engine

Mark = Literal["ok", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: how it is, what was looked at, and what there is to say."""

    mark: Mark
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.subject}: {self.message}"


def run(**given: Any) -> bool:
    """Print each finding as it comes; True if there is nothing to mend."""
    well = True
    with _silent("aiokafka"):  # what it says is said here
        for finding in examine(**given):
            echo(str(finding))
            well = well and finding.mark != "FAIL"
    return well


@contextmanager
def _silent(library: str) -> Iterator[None]:
    """Without the library's log in the block."""
    log = logging.getLogger(library)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def examine(**given: Any) -> Iterator[Finding]:
    """Everything there is to look at; given: settings, as of the command line."""
    for line in unknown_variables():
        yield Finding("WARN", "settings", line)
    try:
        settings = Settings.from_env(**given)
    except SettingsError as error:
        yield Finding("FAIL", "settings", str(error))
        return
    yield Finding("ok", "settings", "all can be used")
    yield from asyncio.run(_all(redis_findings(settings)))
    yield from asyncio.run(_all(kafka_findings(settings)))
    yield from asyncio.run(_all(registry_findings(settings)))
    yield from model_findings(settings)


async def redis_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Does it answer, does it keep what it is given, and who wrote it?"""
    try:
        async with open_redis(settings.redis) as redis:
            info = await server_check.info(redis)
            for finding in _redis_info(info):
                yield finding
            if not server_check.fault_of(info):  # a cluster answers nothing that is asked here
                yield await _schema(redis, Keys(settings.prefix))
                yield await _redis_group(redis, settings)
    except (UnreachableError, SettingsError) as error:
        yield Finding("FAIL", "Redis", str(error))


def _redis_info(info: dict[str, Any]) -> Iterator[Finding]:
    yield _redis_kind(info)
    policy = info.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        yield Finding("ok", "Redis maxmemory-policy", policy)
    else:
        said = f"it is {policy}, so keys may vanish: set it to noeviction"
        yield Finding("FAIL", "Redis maxmemory-policy", said)
    if info.get("aof_enabled"):
        yield Finding("ok", "Redis appendonly", "on")
    else:
        said = "it is off: a restart may lose what was read and asked, and Kafka is read again"
        yield Finding("WARN", "Redis appendonly", said)


def _redis_kind(info: dict[str, Any]) -> Finding:
    if fault := server_check.fault_of(info) or server_check.replica_fault(info):
        return Finding("FAIL", "Redis", fault)
    said = f"answers, version {info['redis_version']}"
    if server_check.version(info) < server_check.TESTED:
        return Finding("WARN", "Redis", f"{said}: not tested with any before 6.2")
    return Finding("ok", "Redis", said)


async def _redis_group(redis: AnyRedis, settings: Settings) -> Finding:
    noted = await groups.noted_groups(redis, settings)
    if fault := groups.fault_of(noted, settings):
        return Finding("FAIL", "Redis group", fault)
    if warning := groups.warning_of(noted, settings):
        return Finding("WARN", "Redis group", warning)
    said = f"{settings.group}, and no other" if noted else "none noted yet, the first worker does"
    return Finding("ok", "Redis group", said)


async def _schema(redis: AnyRedis, keys: Keys) -> Finding:
    try:
        noted = await check_schema(redis, keys)
    except SchemaError as error:
        return Finding("FAIL", "schema", str(error))
    return Finding("ok", "schema", str(noted or "none noted yet, the first worker does"))


async def kafka_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Does it answer, and has it the topics?"""
    names = topic_names(settings)
    try:
        counts = await partition_counts(settings)
        missing = [name for name in names if not counts.get(name)]
        makes_missing = bool(missing) and await auto_creates_topics(settings)
    except (UnreachableError, SettingsError) as error:
        yield Finding("FAIL", "Kafka", str(error))
        return
    yield Finding("ok", "Kafka", f"answers at {settings.broker_address}")
    yield codecs_finding()
    tokens = [*settings.tokens_topics, *matches_pattern(settings, counts)]
    if not tokens:
        said = f"none matches {settings.tokens_topic} yet: a worker waits for one"
        yield Finding("WARN", "topics", said)
    for name in dict.fromkeys([*tokens, *names]):
        if name in missing:
            yield _missing_topic(settings, name, makes_missing)
        else:
            yield _topic(name, counts[name], name in tokens)
    yield await _kafka_group(settings)


def codecs_finding() -> Finding:
    """Can all be read that producers compress with?"""
    if missing := missing_codecs():
        said = f"records compressed with {', '.join(missing)} cannot be read: install cramjam and "
        return Finding("FAIL", "codecs", f"{said}zstandard")
    return Finding("ok", "codecs", f"can be read: {', '.join(NAMES.values())}")


async def _kafka_group(settings: Settings) -> Finding:
    """May a worker join it, and read the topics for it?"""
    what = f"group {settings.group}"
    try:
        return Finding("ok", what, await group_state(settings))
    except UnreachableError as error:
        return Finding("FAIL", what, str(error))


def _topic(name: str, partitions: int, is_shared: bool) -> Finding:
    shared = f", so {partitions} at most can share the work" if is_shared else ""
    return Finding("ok", f"topic {name}", f"partitions: {partitions}{shared}")


def _missing_topic(settings: Settings, name: str, is_made: bool) -> Finding:
    if is_made:
        said = "it is missing: the first worker has the broker create it, by the broker's defaults"
        return Finding("WARN", f"topic {name}", said)
    said = (
        f"it is missing: kafka-topics.sh --bootstrap-server {settings.broker_address} --create "
        f"--topic {name} --partitions {PARTITIONS}"
    )
    return Finding("FAIL", f"topic {name}", said)


async def registry_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Does the schema registry answer, if one is set?"""
    if not settings.schema_registry:
        return
    try:
        with closing(Registry(settings)) as registry:
            said = await registry.answers()
    except (RegistryError, SettingsError) as error:
        yield Finding("FAIL", "schema registry", str(error))
    else:
        yield Finding("ok", "schema registry", said)


def model_findings(settings: Settings) -> Iterator[Finding]:
    """Does it load, do the method's numbers fit its window, and was every log cut for it?"""
    from stream_app.engine import create_engine, description

    try:
        engine = create_engine(settings)
    except XL3MError as error:
        yield Finding("FAIL", "model", str(error))
        return
    except Exception as error:  # whatever a folder holds, the doctor ends with a verdict
        yield Finding("FAIL", "model", f"it cannot be used: {type(error).__name__}: {error}")
        return
    yield Finding("ok", "model", description(engine))
    with suppress(UnreachableError, SchemaError, SettingsError):  # said of Redis already
        for said in asyncio.run(_cuts(settings, engine)):
            yield Finding("WARN", "streams", said)


async def _cuts(settings: Settings, engine: "Engine") -> list[str]:
    """What logs were cut for another model."""
    from stream_app.ingest.segmentation import mismatches
    from stream_app.store.store import StreamStore

    async with open_redis(settings.redis) as redis:
        store = StreamStore.from_settings(settings, redis)
        await check_schema(redis, store.keys)
        return await mismatches(store, engine)


async def _all(findings: AsyncIterator[Finding]) -> list[Finding]:
    return [finding async for finding in findings]
