"""Connection limits: how many connections a port of ours may have at once, and for how long.

A client that sends half a request, or does not read its reply, holds a file descriptor; with all of
them taken the process could open no connection of its own. So one connection too many closes the
oldest idle one, and every connection is closed after a while.
"""

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

MAX_CONNECTIONS = 64
DESCRIPTOR_SHARE = 8
"""At most one in so many of the file descriptors that the process may have."""
MAX_SECONDS = 10.0


def max_connections() -> int:
    """How many connections the process can afford."""
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft_limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(1, soft_limit // DESCRIPTOR_SHARE))


class Connections:
    """The open connections, oldest first, and the busy ones among them: those with a request being
    answered. seconds: how long each may stay open."""

    def __init__(self, limit: int | None = None, seconds: float = MAX_SECONDS) -> None:
        self.limit = max_connections() if limit is None else limit
        self.seconds = seconds
        self.open: dict[asyncio.BaseTransport, None] = {}
        self.busy: set[asyncio.BaseTransport] = set()

    def limited(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """A protocol factory for a server, whose connections keep to the limits."""
        return lambda: _LimitedProtocol(self, factory())

    @contextmanager
    def answering(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """While a complete request is being answered, its connection is not idle."""
        if transport:
            self.busy.add(transport)
        try:
            yield
        finally:
            self.busy.discard(cast(asyncio.BaseTransport, transport))

    def admit(self, transport: asyncio.Transport) -> bool:
        """Whether there is room for the connection, after closing the oldest idle one if needed."""
        if len(self.open) >= self.limit:
            idle = next((known for known in self.open if known not in self.busy), None)
            if idle is None:
                return False
            self.close(idle)
        self.open[transport] = None
        return True

    def close(self, transport: asyncio.BaseTransport) -> None:
        """Close at once, dropping what was still to be sent."""
        self.open.pop(transport, None)
        cast(asyncio.Transport, transport).abort()


class _LimitedProtocol(asyncio.Protocol):
    """Passes the events of an admitted connection on to its protocol."""

    def __init__(self, connections: Connections, inner: asyncio.Protocol) -> None:
        self.connections, self.inner = connections, inner
        self.transport: asyncio.Transport | None = None
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio, as are the others."""
        connection = cast(asyncio.Transport, transport)
        if not self.connections.admit(connection):
            connection.abort()
            return
        self.transport = connection
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(self.connections.seconds, self.connections.close, connection)
        self.inner.connection_made(connection)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport and self.timer:
            self.timer.cancel()
            self.connections.open.pop(self.transport, None)
            self.inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport:
            self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received() if self.transport else None

    def pause_writing(self) -> None:
        if self.transport:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self.transport:
            self.inner.resume_writing()
