"""The HTTP endpoints of a worker, and how they withstand bad clients."""

import asyncio
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from stream_app.app import create_app
from stream_app.embedded import services
from stream_app.embedded.process import free_port
from stream_app.errors import SettingsError
from stream_app.monitoring.connections import max_connections
from stream_app.monitoring.http import MonitoringServer, check_port
from stream_app.settings import Settings
from tests.support.fakes import HashEngine, running, until
from tests.support.monitored import monitoring_server
from tests.support.workers import site

Fresh = Callable[[str], str]


async def test_health_is_there_while_the_worker_is_not_ready(
    http_client: Any, reasons: dict[str, str]
) -> None:
    assert (await http_client.get("/readyz")).status == 200
    reasons["partitions"] = "not assigned now"
    reply = await http_client.get("/readyz")
    assert reply.status == 503
    assert await reply.json() == {"ready": False, "reasons": reasons}
    assert (await http_client.get("/healthz")).status == 200
    assert (await http_client.get("/")).status == 404


async def test_it_serves_until_it_is_cancelled() -> None:
    port = free_port()
    service = monitoring_server({}, port=port)
    async with aiohttp.ClientSession() as session, running(service):
        await until(lambda: answers(session, port))
    async with aiohttp.ClientSession() as session:
        assert not await answers(session, port)
    assert free_port(port) == port


async def test_a_taken_port_is_named() -> None:
    port = free_port()
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)
    async with taken:
        with pytest.raises(SettingsError, match=rf"XL3M_HTTP_PORT.*{port}"):
            await monitoring_server({}, port=port).run()


@pytest.mark.guarantee("Redis outages")
async def test_a_worker_whose_port_is_taken_ends_before_it_joins_and_names_it(
    broker: services.Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    port = free_port()
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)
    async with taken, site(broker.url, redis_url, tmp_path, fresh, http_port=port) as here:
        worker = await here.start()
        assert await asyncio.wait_for(worker.wait(), 60) == 2
    (line,) = (tmp_path / "workers.log").read_text().splitlines()
    assert line.startswith(f"xl3m: XL3M_HTTP_PORT: cannot listen on 127.0.0.1:{port} (")


async def test_a_checked_port_stays_free_and_an_impossible_one_is_named() -> None:
    port = free_port()
    await check_port("127.0.0.1", port)
    await check_port("127.0.0.1", 0)
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port):
        with pytest.raises(SettingsError, match="XL3M_HTTP_PORT"):
            await check_port("127.0.0.1", port)
    with pytest.raises(SettingsError, match="XL3M_HTTP_PORT"):
        await check_port("203.0.113.1", port)  # an address of no machine


async def answers(session: aiohttp.ClientSession, port: int, path: str = "healthz") -> bool:
    """Whether the endpoint replies with 200."""
    try:
        async with session.get(f"http://127.0.0.1:{port}/{path}") as reply:
            return reply.status == 200
    except aiohttp.ClientConnectionError:
        return False


SERVE = """
import asyncio, logging, resource, sys
from prometheus_client import CollectorRegistry
from stream_app.monitoring.http import MonitoringServer
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
logging.basicConfig()
async def ready():
    return {}
asyncio.run(MonitoringServer("127.0.0.1", int(sys.argv[1]), CollectorRegistry(), ready).run())
"""
HALF = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: "


async def half_sent(port: int) -> asyncio.StreamWriter:
    """A connection that sends half a request."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HALF)
    await writer.drain()
    return writer


@pytest.mark.guarantee("Logs and metrics")
async def test_half_sent_requests_do_not_block_other_clients(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as output:
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVE, str(port), stdout=output, stderr=output
        )
    async with aiohttp.ClientSession() as session:
        try:
            await until(lambda: answers(session, port))
            idle = [await half_sent(port) for _ in range(240)]
            for path in ("healthz", "readyz", "metrics") * 20:
                assert await answers(session, port, path), path
            descriptors = list(Path(f"/proc/{server.pid}/fd").iterdir())
            assert len(descriptors) < 32
            for writer in idle:
                writer.close()
        finally:
            server.terminate()
            await server.wait()
    assert log.read_text() == ""


@pytest.mark.guarantee("Logs and metrics")
async def test_one_connection_too_many_closes_the_oldest_idle_one() -> None:
    service = monitoring_server({}, port=free_port())
    service.connections.limit = 3
    async with running(service), aiohttp.ClientSession() as session:
        await until(lambda: answers(session, service.port))
        idle = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(3)]
        await until(lambda: len(service.connections.open) == 3)
        assert await answers(session, service.port)
        assert await idle[0][0].read() == b""
        assert await answers(session, service.port)
        assert len(service.connections.open) <= 3
        for _, writer in idle:
            writer.close()


@pytest.mark.guarantee("Logs and metrics")
async def test_every_connection_is_closed_after_a_while() -> None:
    service = monitoring_server({}, port=free_port())
    service.connections.seconds = 0.05
    async with running(service), aiohttp.ClientSession() as session:
        await until(lambda: answers(session, service.port))
        writer = await half_sent(service.port)
        await until(lambda: not service.connections.open)
        writer.close()


async def test_a_busy_connection_is_not_closed_for_a_new_one() -> None:
    service, go = monitoring_server({}, port=free_port()), asyncio.Event()
    service.connections.limit = 2

    async def slow() -> dict[str, str]:
        await go.wait()
        return {}

    service.reasons = slow
    async with running(service), aiohttp.ClientSession() as session:
        await until(lambda: answers(session, service.port))
        asked = asyncio.create_task(answers(session, service.port, "readyz"))
        await until(lambda: service.connections.busy)
        for _ in range(5):
            assert await answers(session, service.port)
        go.set()
        assert await asked
    assert not service.connections.busy


def test_connections_have_an_eighth_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, limit in ((64, 8), (256, 32), (1024, 64), (4, 1), (resource.RLIM_INFINITY, 64)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert max_connections() == limit


@pytest.mark.parametrize("port", [0, 1])
def test_a_worker_has_endpoints_only_if_a_port_is_set(port: int) -> None:
    app = create_app(Settings(http_port=port), HashEngine())
    children: list[Any] = list(app._children)
    assert [type(child.service) for child in children] == [MonitoringServer] * bool(port)


async def test_a_running_worker_is_ready_and_ends_cleanly(
    broker: services.Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    port = free_port()
    async with (
        site(broker.url, redis_url, tmp_path, fresh, http_port=port) as here,
        aiohttp.ClientSession() as session,
    ):
        worker = await here.start()
        await here.until(lambda: answers(session, port, "readyz"))
        assert await answers(session, port)
        async with session.get(f"http://127.0.0.1:{port}/metrics") as reply:
            assert "xl3m_lag_tokens 0.0" in (await reply.text()).splitlines()
        began = time.monotonic()
        assert await here.stop(worker) == 0
        assert time.monotonic() - began < 30
        assert "Traceback" not in (tmp_path / "workers.log").read_text()
