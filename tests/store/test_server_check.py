"""A server that workers cannot use is found by its INFO; the facts are those of the server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.embedded import services
from stream_app.settings import Settings
from stream_app.store.groups import note_group
from stream_app.store.keys import SCHEMA, Keys
from stream_app.store.schema import ensure_schema
from stream_app.store.server_check import (
    DataFacts,
    data_facts,
    fault_of,
    info,
    replica_fault,
    server_facts,
)

GOOD = {"redis_version": "7.4.6", "role": "master", "redis_mode": "standalone"}


def test_a_server_that_no_worker_can_use_is_found_by_its_info() -> None:
    assert fault_of(GOOD) == replica_fault(GOOD) == ""
    assert "cluster" in fault_of(GOOD | {"redis_mode": "cluster"})
    assert "cluster" in fault_of(GOOD | {"cluster_enabled": 1})
    assert "older than 6.0" in fault_of(GOOD | {"redis_version": "5.0.14"})
    assert fault_of(GOOD | {"redis_version": "6.0.0"}) == ""


@pytest.mark.parametrize(
    ("fields", "fact", "value"),
    [
        ({}, "version", "7.4.6"),
        ({}, "is_tested", True),
        ({"redis_version": "6.0.16"}, "is_tested", False),
        ({"role": "slave", "master_host": "a", "master_port": 1}, "fault", ""),
        ({"maxmemory_policy": "noeviction"}, "may_evict", False),
        ({"maxmemory_policy": "allkeys-lru"}, "may_evict", True),
        ({}, "may_evict", True),  # unknown
        ({"aof_enabled": 1}, "is_append_only", True),
        ({"aof_enabled": 0}, "is_append_only", False),
    ],
)
def test_facts_are_read_from_info(fields: dict[str, Any], fact: str, value: object) -> None:
    assert getattr(server_facts(GOOD | fields), fact) == value


async def test_facts_of_a_real_server(tmp_path: Path) -> None:
    with services.redis(tmp_path, appendonly=True) as service:
        async with Redis.from_url(service.url) as redis:
            facts = server_facts(await info(redis))
    assert facts.is_tested and facts.is_append_only and not facts.may_evict
    assert facts.version and facts.fault == facts.replica_fault == ""


async def test_facts_of_the_data_change_as_workers_note_themselves(
    redis_client: Redis, fresh: Callable[[str], str]
) -> None:
    settings = Settings(prefix=fresh("p"), group="a")
    keys = Keys(settings.prefix)
    empty = await data_facts(redis_client, settings)
    assert empty == DataFacts(None, "", False, "", "")
    await ensure_schema(redis_client, keys)
    await note_group(redis_client, settings)
    noted = await data_facts(redis_client, settings)
    assert noted == DataFacts(SCHEMA, "", True, "", "")
    await redis_client.set(keys.schema(), SCHEMA + 1)
    other = await data_facts(redis_client, settings.replace(group="b"))
    assert other.schema is None and "newer" in other.schema_fault
    assert "'a'" in other.group_fault and "'a'" in other.group_warning
