"""Http: a door for those who run a worker: /metrics, /healthz, /readyz.

No way in for events or queries, and no passwords out. Knows a registry and whom to ask for the
reasons not to be ready; nothing of streams.
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

# A probe that is under way when the worker ends may finish.
CLOSING_SECONDS = 3.0

# Tries of asyncio to accept what waits, each of which is logged, where no file can be opened.
BACKLOG = 16

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Reasons = Callable[[], Awaitable[Mapping[str, str]]]


async def check_port(host: str, port: int) -> None:
    """Raise SettingsError if the port cannot be had; 0 is none. Nobody can connect meanwhile."""
    if port:
        with _named(host, port):
            loop = asyncio.get_running_loop()
            server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
            server.close()


@contextmanager
def _named(host: str, port: int) -> Iterator[None]:
    """What keeps a port from being had is said with its name."""
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"{variable('http_port')}: cannot listen on {host}:{port} ({error.strerror}): every "
            "worker of a machine needs a port of its own"
        ) from error


class MonitoringServer:
    """One per worker. reasons: why the worker is not ready, empty if it is."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, reasons: Reasons) -> None:
        self.host = host
        self.port = port
        self.registry = registry
        self.reasons = reasons
        self.connections = Connections()

    async def run(self) -> None:
        """Serve until cancelled. Raises SettingsError if the port cannot be had."""
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=CLOSING_SECONDS)
        await runner.setup()
        try:
            async with await self._listen(runner):
                await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def app(self) -> web.Application:
        """The three paths."""
        app = web.Application(middlewares=[self._answering])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        return app

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        factory = self.connections.guarded(cast(Callable[[], asyncio.Protocol], runner.server))
        loop = asyncio.get_running_loop()
        with _named(self.host, self.port):
            server = await loop.create_server(factory, self.host, self.port, backlog=BACKLOG)
        logger.info("metrics and health at http://%s:%d", self.host, self.port)
        return server

    @web.middleware
    async def _answering(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """One request a connection: those that are idle hold nothing."""
        with self.connections.answering(request.transport):
            response = await handler(request)
        response.force_close()
        return response

    async def _metrics(self, request: web.Request) -> web.Response:
        """On the event loop, so that what is read does not change meanwhile."""
        body = generate_latest(self.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, request: web.Request) -> web.Response:
        """That this is sent says that the process lives and its event loop turns."""
        return web.json_response({"alive": True})

    async def _readyz(self, request: web.Request) -> web.Response:
        reasons = dict(await self.reasons())
        body = {"ready": not reasons, "reasons": reasons}
        return web.json_response(body, status=503 if reasons else 200)
