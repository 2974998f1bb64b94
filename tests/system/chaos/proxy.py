"""A TCP proxy on loopback whose connections can all be reset at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK = 1 << 16


class Proxy:
    """A proxy in front of a port, whose server may stop and restart."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self.open:
            writer.transport.abort()
        self.open.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection in both directions, until either side ends it."""
        try:
            onward = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, onward[1]}
        self.open |= ends
        both = [
            asyncio.create_task(_pump(reader, onward[1])),
            asyncio.create_task(_pump(onward[0], writer)),
        ]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.transport.abort()
        self.open -= ends
        await asyncio.gather(*both)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxied(target: int) -> AsyncIterator[Proxy]:
    """A running proxy in front of the port."""
    proxy = Proxy(target)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy
        proxy.cut()
