"""Progress: shows how much of a stream is scored for a question until the answer comes, and the
latest early answer.

Polls Redis. A Redis user without the right to read the ranges sees no progress and gets the same
answer.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from stream_app.cli.display import early_answer, progress
from stream_app.cli.output import StatusLine, echo
from stream_app.client import client
from stream_app.runtime.retry import raise_if_cancelled
from stream_app.store.connection import RedisError
from stream_app.store.store import StreamStore

POLLED_SECONDS = 0.5
"""Faster answers show no progress."""


class Progress:
    """For one question of one stream; None: the standing question."""

    def __init__(self, store: StreamStore, stream: str, question: str | None) -> None:
        self.store = store
        self.stream = stream
        self.question = question
        self._line = StatusLine()
        self._showing: asyncio.Task[None] | None = None
        self._early = ""

    @asynccontextmanager
    async def shown(self, wanted: bool) -> AsyncIterator[None]:
        """Show it inside the block, until `stop`; wanted: False shows nothing."""
        if wanted:
            self._showing = asyncio.create_task(self._show())
        try:
            yield
        finally:
            await self.stop()

    def show_answer(self, revision: Mapping[str, Any]) -> None:
        """Show an early answer in place of the one before, on the line of the progress; on a line
        of its own if no progress is shown."""
        self._early = early_answer(revision)
        if self._showing:
            self._line.show(self._early)
        else:
            echo(self._early, err=True)

    async def stop(self) -> None:
        """Stop and clear the line, before the answer is printed."""
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
            except (RedisError, OSError):  # the caller waiting for the answer reports it
                return
            raise_if_cancelled()
            if known:
                scored = progress(*known, time.monotonic() - began)
                self._line.show(" | ".join(filter(None, [self._early, scored])))
