"""HTTP endpoints for operators: /metrics, /healthz and /readyz.

They accept no events or queries and show no passwords.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from stream_app.errors import SettingsError
from stream_app.monitoring.connections import Connections
from stream_app.settings.variables import variable

logger = logging.getLogger("xl3m")

# A request that is being answered when the worker ends may finish.
CLOSING_SECONDS = 3.0

# With no file descriptor left asyncio logs one error for each connection in the backlog.
BACKLOG = 16

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Reasons = Callable[[], Awaitable[Mapping[str, str]]]


async def check_port(host: str, port: int) -> None:
    """Raise SettingsError if the port cannot be listened on; port 0 means no server."""
    if port:
        with _port_errors(host, port):
            loop = asyncio.get_running_loop()
            server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
            server.close()


@contextmanager
def _port_errors(host: str, port: int) -> Iterator[None]:
    """Turn an OSError into a SettingsError that names the address."""
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"{variable('http_port')}: cannot listen on {host}:{port} ({error.strerror}): every "
            "worker on a machine needs its own port"
        ) from error


class MonitoringServer:
    """One per worker. reasons: tells why the worker is not ready; empty if it is."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, reasons: Reasons) -> None:
        self.host = host
        self.port = port
        self.registry = registry
        self.reasons = reasons
        self.connections = Connections()

    async def run(self) -> None:
        """Serve until cancelled. Raises SettingsError if the port cannot be listened on."""
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=CLOSING_SECONDS)
        await runner.setup()
        try:
            async with await self._listen(runner):
                await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def app(self) -> web.Application:
        """The three paths."""
        app = web.Application(middlewares=[self._answer])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        return app

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        factory = self.connections.limited(cast(Callable[[], asyncio.Protocol], runner.server))
        loop = asyncio.get_running_loop()
        with _port_errors(self.host, self.port):
            server = await loop.create_server(factory, self.host, self.port, backlog=BACKLOG)
        logger.info("metrics and health at http://%s:%d", self.host, self.port)
        return server

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """One request per connection, so that idle clients hold none open."""
        with self.connections.answering(request.transport):
            response = await handler(request)
        response.force_close()
        return response

    async def _metrics(self, request: web.Request) -> web.Response:
        """Runs on the event loop, so that the state does not change while it is read."""
        body = generate_latest(self.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, request: web.Request) -> web.Response:
        """A reply means that the process lives and its event loop runs."""
        return web.json_response({"alive": True})

    async def _readyz(self, request: web.Request) -> web.Response:
        reasons = dict(await self.reasons())
        body = {"ready": not reasons, "reasons": reasons}
        return web.json_response(body, status=503 if reasons else 200)
