"""Connections: how many there may be to a port of ours at once, and for how long.

A client that sends half a request, or reads no answer, holds a file descriptor: all of them, and
the process can open no connection of its own. So when there is one too many, the one that has been
silent for the longest time goes, and each goes in the end. Knows transports; no HTTP.
"""

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

CONNECTIONS = 64
SHARE = 8
"""Of the file descriptors that the process may have, at most one in so many."""
SECONDS = 10.0


def room() -> int:
    """How many connections there may be."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limited = soft != resource.RLIM_INFINITY
    return min(CONNECTIONS, max(1, soft // SHARE)) if limited else CONNECTIONS


class Connections:
    """Those that are open, the oldest first, and those of them that a request is answered on."""

    def __init__(self, most: int | None = None, seconds: float = SECONDS) -> None:
        self.most = room() if most is None else most
        self.seconds = seconds
        self.open: dict[asyncio.BaseTransport, None] = {}
        self.busy: set[asyncio.BaseTransport] = set()

    def guarded(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """What makes protocols for a server, of no more connections than there may be."""
        return lambda: _Guard(self, factory())

    @contextmanager
    def answering(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """For as long as a request that came whole is answered."""
        if transport:
            self.busy.add(transport)
        try:
            yield
        finally:
            self.busy.discard(cast(asyncio.BaseTransport, transport))

    def admit(self, transport: asyncio.Transport) -> bool:
        """Whether there is room for one more, after the oldest idle one has made some."""
        if len(self.open) >= self.most:
            idle = next((each for each in self.open if each not in self.busy), None)
            if idle is None:
                return False
            self.close(idle)
        self.open[transport] = None
        return True

    def close(self, transport: asyncio.BaseTransport) -> None:
        """At once: what was to be sent is dropped."""
        self.open.pop(transport, None)
        cast(asyncio.Transport, transport).abort()


class _Guard(asyncio.Protocol):
    """Between a transport and the protocol that it is for."""

    def __init__(self, connections: Connections, inner: asyncio.Protocol) -> None:
        self.connections, self.inner = connections, inner
        self.transport: asyncio.Transport | None = None
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio, as are the others."""
        made = cast(asyncio.Transport, transport)
        if not self.connections.admit(made):
            made.abort()
            return
        self.transport = made
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(self.connections.seconds, self.connections.close, made)
        self.inner.connection_made(made)

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
