"""Shutdown: a worker that is asked to stop ends within a time limit, whatever it waits for.

Queries that were started may be finished in half of that time; the rest is for leaving the consumer
group. At the limit, or at a second signal, the process ends as if killed. Nothing is committed that
was not written, so that costs a redelivery.
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
    """One per worker. seconds: the time limit; requested: whether the worker is to stop; open:
    queries that were started and are not finished."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.requested = False
        self.open = 0
        self._query_finished = asyncio.Event()

    def begin(self) -> None:
        """Start the time limit; on a thread, since the event loop may be what is stuck."""
        if not self.requested:
            self.requested = True
            timer = threading.Timer(self.seconds, self.end_now, [1])
            timer.daemon = True
            timer.start()

    def end_now(self, code: int, why: str = UNFINISHED) -> None:
        """End the process with this exit code, whatever its other threads do. why: the last line of
        the log, which is given a second, since logging may be stuck as well."""
        logging_thread = threading.Thread(target=logger.critical, args=["%s", why], daemon=True)
        logging_thread.start()
        logging_thread.join(LOGGING_SECONDS)
        os._exit(code)

    def query_started(self) -> None:
        """One more query is to be finished before the worker ends."""
        self.open += 1

    def query_finished(self) -> None:
        """A query was answered, and acknowledged if it came from Kafka."""
        self.open -= 1
        self._query_finished.set()

    async def drain(self) -> None:
        """Wait until all started queries are finished, or half of the time limit has passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds / 2):
                while self.open:
                    self._query_finished.clear()
                    await self._query_finished.wait()

    async def wait_unless_stopping(self) -> None:
        """Return at once, or never if the worker is to stop: new work is left to other workers."""
        if self.requested:
            await asyncio.Event().wait()
