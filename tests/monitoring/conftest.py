"""A monitored worker, and a client of its HTTP endpoints."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis

from tests.support.monitored import MonitoredWorker, monitoring_server


@pytest.fixture
def world(redis_client: Redis) -> MonitoredWorker:
    """A worker that has done nothing yet."""
    return MonitoredWorker(redis_client)


@pytest.fixture
async def reasons() -> dict[str, str]:
    """Why the worker is not ready; empty at first."""
    return {}


@pytest.fixture
async def http_client(world: MonitoredWorker, reasons: dict[str, str]) -> AsyncIterator[Any]:
    """A client of the worker's endpoints."""
    server = monitoring_server(reasons, world.metrics.registry)
    async with TestClient(TestServer(server.app())) as client:
        yield client
