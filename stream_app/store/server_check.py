"""RedisCheck: whether a Redis is set up for the workers' data, according to its INFO.

Knows what INFO tells; not what is kept there.
"""

from collections.abc import Mapping
from typing import Any

from stream_app.errors import SettingsError, UnreachableError
from stream_app.settings.variables import variable
from stream_app.store.connection import AnyRedis

MIN_VERSION = (6, 0)
"""Before that it has no RESP3, which the client speaks."""
TESTED = (6, 2)


async def ensure_usable(redis: AnyRedis) -> None:
    """Raises UnreachableError for a replica, which may be made primary yet, and SettingsError for
    what no worker can ever use."""
    server = await info(redis)
    if fault := replica_fault(server):
        raise UnreachableError(fault)
    if fault := fault_of(server):
        raise SettingsError(fault)


async def info(redis: AnyRedis) -> dict[str, Any]:
    """The fields of INFO."""
    fields: dict[str, Any] = await redis.info()
    return fields


def replica_fault(info: Mapping[str, Any]) -> str:
    """Why nothing that lasts can be written to it; empty if it can."""
    if info.get("role", "master") == "master":
        return ""
    primary = f"{info.get('master_host')}:{info.get('master_port')}"
    return f"Redis is a replica of {primary} and takes no writes: name that in {variable('redis')}"


def fault_of(info: Mapping[str, Any]) -> str:
    """Why no worker can use it; empty if one can."""
    if info.get("cluster_enabled") or info.get("redis_mode") == "cluster":
        return (
            "Redis runs in cluster mode, and a worker writes keys of several slots at once: name a "
            f"server without it in {variable('redis')}"
        )
    if version(info) < MIN_VERSION:
        least = ".".join(map(str, MIN_VERSION))
        return f"Redis {info['redis_version']} is older than {least}: upgrade it"
    return ""


def version(info: Mapping[str, Any]) -> tuple[int, ...]:
    """The numbers of its version that mean anything here."""
    parts = str(info.get("redis_version", "")).split(".")[:2]
    return tuple(int(part) for part in parts if part.isdecimal())
