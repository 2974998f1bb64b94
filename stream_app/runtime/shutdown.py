"""Stopping: a worker that is told to stop ends within a bound, whatever it waits for.

Queries that were begun may be finished in half of the time; the rest is for leaving the group.
When it is over, or the worker is told once more, the process ends as if killed: nothing is
acknowledged that is not written, so that costs a redelivery. Knows no Faust and no Redis.
"""

import asyncio
import logging
import os
import threading
from contextlib import suppress

logger = logging.getLogger("xl3m")

LOGGING_SECONDS = 1.0
UNFINISHED = "ends before all is done: what was not acknowledged will be delivered again"


class Shutdown:
    """One per worker. told: whether it was told to stop; open: queries begun and not finished."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.requested = False
        self.open = 0
        self._finished = asyncio.Event()

    def begin(self) -> None:
        """From now on time runs; on a thread, since the event loop may be what is stuck."""
        if not self.requested:
            self.requested = True
            timer = threading.Timer(self.seconds, self.end_now, [1])
            timer.daemon = True
            timer.start()

    def end_now(self, code: int, why: str = UNFINISHED) -> None:
        """End the process, whatever its other threads do. Why is the last line of the log, which
        may be stuck as well."""
        saying = threading.Thread(target=logger.critical, args=["%s", why], daemon=True)
        saying.start()
        saying.join(LOGGING_SECONDS)
        os._exit(code)

    def query_started(self) -> None:
        """A query more is to be finished before the worker ends."""
        self.open += 1

    def query_finished(self) -> None:
        """It is: answered, and acknowledged where that is done."""
        self.open -= 1
        self._finished.set()

    async def drain(self) -> None:
        """Wait until those that were begun are finished, or half of the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds / 2):
                while self.open:
                    self._finished.clear()
                    await self._finished.wait()

    async def wait_unless_stopping(self) -> None:
        """Return, unless the worker is to stop: what comes now is left to another one."""
        if self.requested:
            await asyncio.Event().wait()
