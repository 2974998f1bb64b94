"""Progress: shows how much of a stream is read for a question while its asker waits.

Looks in Redis now and then, where workers note what they have scored. Knows whom to ask and where
to show it; an asker without the right to look sees nothing, and has the same answer.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stream_app.cli.display import progress
from stream_app.cli.output import StatusLine
from stream_app.client import client
from stream_app.runtime.retry import raise_if_cancelled
from stream_app.store.connection import RedisError
from stream_app.store.store import StreamStore

POLLED_SECONDS = 0.5
"""An answer that comes sooner needs none."""


class Progress:
    """Of one question of one stream; None: of its current one."""

    def __init__(self, store: StreamStore, stream: str, question: str | None) -> None:
        self.store = store
        self.stream = stream
        self.question = question
        self._line = StatusLine()
        self._showing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def shown(self, wanted: bool) -> AsyncIterator[None]:
        """Show it within the block, or until `stop`."""
        if wanted:
            self._showing = asyncio.create_task(self._show())
        try:
            yield
        finally:
            await self.stop()

    async def stop(self) -> None:
        """The first word of the answer is there: it takes the line."""
        if self._showing:
            self._showing.cancel()
            await asyncio.gather(self._showing, return_exceptions=True)
            self._showing = None
            self._line.clear()

    async def _show(self) -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(POLLED_SECONDS)
            try:
                known = await client.scored_segments(self.store, self.stream, self.question)
            except (RedisError, OSError):  # whoever waits for the answer says so
                return
            raise_if_cancelled()
            if known:
                self._line.show(progress(*known, time.monotonic() - began))
