"""Server check: whether workers can use a Redis server, and what it holds already.

`ensure_usable` decides when a worker starts; the facts are for the doctor. Nothing is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stream_app.errors import SchemaError, SettingsError, UnreachableError
from stream_app.settings import Settings
from stream_app.settings.variables import variable
from stream_app.store.connection import AnyRedis
from stream_app.store.groups import fault_of as group_fault_of
from stream_app.store.groups import noted_groups, warning_of
from stream_app.store.keys import Keys
from stream_app.store.schema import check_schema

MIN_VERSION = (6, 0)
"""Older servers do not have RESP3, the client's protocol."""
TESTED = (6, 2)
"""The oldest version that is tested."""
NO_EVICTION = "noeviction"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A server, as INFO describes it.

    fault: why no worker can use it; replica_fault: why it takes no writes now; both are empty if
    there is no reason. is_tested: whether the version is TESTED or later. eviction_policy:
    `maxmemory-policy`. is_append_only: whether a restart keeps recent writes.
    """

    version: str
    is_tested: bool
    fault: str
    replica_fault: str
    eviction_policy: str
    is_append_only: bool

    @property
    def may_evict(self) -> bool:
        """Whether keys are deleted when memory is full."""
        return self.eviction_policy != NO_EVICTION


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What a server holds under the settings' prefix. schema: None if none is noted yet, or if
    schema_fault says what is wrong with it. has_groups: whether any group is noted; group_fault,
    group_warning: see `groups`. Faults and warnings are empty if there is none."""

    schema: int | None
    schema_fault: str
    has_groups: bool
    group_fault: str
    group_warning: str


async def ensure_usable(redis: AnyRedis) -> None:
    """Raises UnreachableError for a replica, which may become the primary, and SettingsError for a
    server that no worker can use."""
    server = await info(redis)
    if fault := replica_fault(server):
        raise UnreachableError(fault)
    if fault := fault_of(server):
        raise SettingsError(fault)


async def info(redis: AnyRedis) -> dict[str, Any]:
    """The fields of the server's INFO."""
    fields: dict[str, Any] = await redis.info()
    return fields


def server_facts(info: Mapping[str, Any]) -> ServerFacts:
    """The facts in the fields of INFO."""
    return ServerFacts(
        version=str(info.get("redis_version", "")),
        is_tested=version(info) >= TESTED,
        fault=fault_of(info),
        replica_fault=replica_fault(info),
        eviction_policy=str(info.get("maxmemory_policy", "unknown")),
        is_append_only=bool(info.get("aof_enabled")),
    )


async def data_facts(redis: AnyRedis, settings: Settings) -> DataFacts:
    """The schema and the groups in Redis. A server in cluster mode may not be asked."""
    schema, schema_fault = None, ""
    try:
        schema = await check_schema(redis, Keys(settings.prefix))
    except SchemaError as error:
        schema_fault = str(error)
    groups = await noted_groups(redis, settings)
    return DataFacts(
        schema,
        schema_fault,
        bool(groups),
        group_fault_of(groups, settings),
        warning_of(groups, settings),
    )


def replica_fault(info: Mapping[str, Any]) -> str:
    """Why the server takes no writes; empty if it does."""
    if info.get("role", "master") == "master":
        return ""
    primary = f"{info.get('master_host')}:{info.get('master_port')}"
    return f"Redis is a replica of {primary} and takes no writes: set {variable('redis')} to that"


def fault_of(info: Mapping[str, Any]) -> str:
    """Why no worker can use the server; empty if one can."""
    if info.get("cluster_enabled") or info.get("redis_mode") == "cluster":
        return (
            "Redis runs in cluster mode, but a worker writes keys of several slots at once: set "
            f"{variable('redis')} to a standalone server"
        )
    if version(info) < MIN_VERSION:
        least = ".".join(map(str, MIN_VERSION))
        return f"Redis {info['redis_version']} is older than {least}: upgrade it"
    return ""


def version(info: Mapping[str, Any]) -> tuple[int, ...]:
    """The server's major and minor version."""
    parts = str(info.get("redis_version", "")).split(".")[:2]
    return tuple(int(part) for part in parts if part.isdecimal())
