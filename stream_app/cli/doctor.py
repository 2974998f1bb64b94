"""`xl3m doctor`: checks everything a worker needs, and says what to fix.

It only reads: no topic is created and no key is written.
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
from stream_app.store.connection import open_redis
from stream_app.store.schema import check_schema
from stream_app.store.server_check import (
    NO_EVICTION,
    TESTED,
    DataFacts,
    ServerFacts,
    data_facts,
    info,
    server_facts,
)
from xl3m_core.errors import XL3MError

PARTITIONS = 4
"""Partitions in the suggested command for a missing topic: as many workers can share it."""
NOT_NOTED = "not recorded yet: the first worker does"
if TYPE_CHECKING:
    from xl3m_core import Engine

Mark = Literal["ok", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: its mark, what was checked, and what was found."""

    mark: Mark
    subject: str
    message: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.subject}: {self.message}"


def run(**given: Any) -> bool:
    """Print each finding at once; True if no check failed."""
    passed = True
    with _silenced("aiokafka"):  # its errors are part of the report
        for finding in examine(**given):
            echo(str(finding))
            passed = passed and finding.mark != "FAIL"
    return passed


@contextmanager
def _silenced(library: str) -> Iterator[None]:
    """Silence a library's log inside the block."""
    log = logging.getLogger(library)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def examine(**given: Any) -> Iterator[Finding]:
    """Run all checks. given: settings of the command line."""
    for line in unknown_variables():
        yield Finding("WARN", "settings", line)
    try:
        settings = Settings.from_env(**given)
    except SettingsError as error:
        yield Finding("FAIL", "settings", str(error))
        return
    yield Finding("ok", "settings", "all are valid")
    yield from asyncio.run(_all(redis_findings(settings)))
    yield from asyncio.run(_all(kafka_findings(settings)))
    yield from asyncio.run(_all(registry_findings(settings)))
    yield from model_findings(settings)


async def redis_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Check Redis: connection, eviction policy, persistence, schema and consumer group."""
    try:
        async with open_redis(settings.redis) as redis:
            server = server_facts(await info(redis))
            for finding in (_redis_server(server), _eviction(server), _persistence(server)):
                yield finding
            if not server.fault:
                data = await data_facts(redis, settings)
                yield _schema(data)
                yield _redis_group(data, settings)
    except (UnreachableError, SettingsError) as error:
        yield Finding("FAIL", "Redis", str(error))


def _redis_server(server: ServerFacts) -> Finding:
    if fault := server.fault or server.replica_fault:
        return Finding("FAIL", "Redis", fault)
    message = f"answers, version {server.version}"
    if not server.is_tested:
        oldest = ".".join(map(str, TESTED))
        return Finding("WARN", "Redis", f"{message}: older than {oldest}, the oldest tested")
    return Finding("ok", "Redis", message)


def _eviction(server: ServerFacts) -> Finding:
    subject, policy = "Redis maxmemory-policy", server.eviction_policy
    if server.may_evict:
        message = f"it is {policy}, so keys may be evicted: set it to {NO_EVICTION}"
        return Finding("FAIL", subject, message)
    return Finding("ok", subject, policy)


def _persistence(server: ServerFacts) -> Finding:
    if server.is_append_only:
        return Finding("ok", "Redis appendonly", "on")
    message = "it is off: a Redis restart may lose recent writes, which Kafka then supplies again"
    return Finding("WARN", "Redis appendonly", message)


def _schema(data: DataFacts) -> Finding:
    if data.schema_fault:
        return Finding("FAIL", "schema", data.schema_fault)
    return Finding("ok", "schema", str(data.schema or NOT_NOTED))


def _redis_group(data: DataFacts, settings: Settings) -> Finding:
    if data.group_fault:
        return Finding("FAIL", "Redis group", data.group_fault)
    if data.group_warning:
        return Finding("WARN", "Redis group", data.group_warning)
    message = f"{settings.group}, and no other" if data.has_groups else NOT_NOTED
    return Finding("ok", "Redis group", message)


async def kafka_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Check Kafka: connection, codecs, topics and consumer group."""
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
        message = f"none matches {settings.tokens_topic} yet: a worker waits for one"
        yield Finding("WARN", "topics", message)
    for name in dict.fromkeys([*tokens, *names]):
        if name in missing:
            yield _missing_topic(settings, name, makes_missing)
        else:
            yield _topic(name, counts[name], name in tokens)
    yield await _kafka_group(settings)


def codecs_finding() -> Finding:
    """Check that all of Kafka's compression codecs can be read."""
    if missing := missing_codecs():
        message = (
            f"records compressed with {', '.join(missing)} cannot be read: install cramjam and "
        )
        return Finding("FAIL", "codecs", f"{message}zstandard")
    return Finding("ok", "codecs", f"can be read: {', '.join(NAMES.values())}")


async def _kafka_group(settings: Settings) -> Finding:
    """Check that a worker may join the group and read the topics."""
    what = f"group {settings.group}"
    try:
        return Finding("ok", what, await group_state(settings))
    except UnreachableError as error:
        return Finding("FAIL", what, str(error))


def _topic(name: str, partitions: int, is_shared: bool) -> Finding:
    shared = f", so at most {partitions} workers can share it" if is_shared else ""
    return Finding("ok", f"topic {name}", f"partitions: {partitions}{shared}")


def _missing_topic(settings: Settings, name: str, is_made: bool) -> Finding:
    if is_made:
        message = (
            "it is missing: the broker creates it with its defaults when the first worker starts"
        )
        return Finding("WARN", f"topic {name}", message)
    message = (
        f"it is missing: kafka-topics.sh --bootstrap-server {settings.broker_address} --create "
        f"--topic {name} --partitions {PARTITIONS}"
    )
    return Finding("FAIL", f"topic {name}", message)


async def registry_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Check that the schema registry answers, if one is set."""
    if not settings.schema_registry:
        return
    try:
        with closing(Registry(settings)) as registry:
            message = await registry.answers()
    except (RegistryError, SettingsError) as error:
        yield Finding("FAIL", "schema registry", str(error))
    else:
        yield Finding("ok", "schema registry", message)


def model_findings(settings: Settings) -> Iterator[Finding]:
    """Check that the model loads, fits the settings, and that streams were segmented for it."""
    from stream_app.engine import create_engine, description

    try:
        engine = create_engine(settings)
    except XL3MError as error:
        yield Finding("FAIL", "model", str(error))
        return
    except Exception as error:  # any model folder must yield a finding
        yield Finding("FAIL", "model", f"it cannot be used: {type(error).__name__}: {error}")
        return
    yield Finding("ok", "model", description(engine))
    with suppress(UnreachableError, SchemaError, SettingsError):  # reported for Redis already
        for message in asyncio.run(_segmented_otherwise(settings, engine)):
            yield Finding("WARN", "streams", message)


async def _segmented_otherwise(settings: Settings, engine: "Engine") -> list[str]:
    """Streams that were segmented for another model."""
    from stream_app.ingest.segmentation import mismatches
    from stream_app.store.store import StreamStore

    async with open_redis(settings.redis) as redis:
        store = StreamStore.from_settings(settings, redis)
        await check_schema(redis, store.keys)
        return await mismatches(store, engine)


async def _all(findings: AsyncIterator[Finding]) -> list[Finding]:
    return [finding async for finding in findings]
