"""Watchdog: ends a worker that has work and makes no progress.

Faust's own livelock detection is switched off: its limit on the time between two polls would
permanently remove from the group a worker that only waits for a slow model. The interpreter's timer
is used here, which fires even if the event loop is stuck.
"""

import asyncio
import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Hashable

EXPLAIN_SECONDS = 0.5
"""How long before the stack traces their explanation is printed."""


class Watchdog:
    """seconds: how long there may be no progress; progress: a value that changes whenever something
    is done; busy: whether there is anything to do."""

    def __init__(
        self, seconds: float, progress: Callable[[], Hashable], busy: Callable[[], bool]
    ) -> None:
        self.seconds = seconds
        self.progress = progress
        self.busy = busy
        self._timer = threading.Timer(0, self._explain)

    async def run(self) -> None:
        """Postpone the timer while there is progress, or nothing to do."""
        last, since = self.progress(), time.monotonic()
        try:
            while True:
                progress = self.progress()
                if progress != last or not self.busy():
                    last, since = progress, time.monotonic()
                remaining = self.seconds - (time.monotonic() - since)
                if remaining > 0:
                    self._postpone(remaining + 1)
                await asyncio.sleep(min(1.0, self.seconds / 4))
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._timer.cancel()

    def _postpone(self, seconds: float) -> None:
        """Have the process end after so many seconds. The interpreter then prints only stack
        traces, so a thread explains them just before, if it gets to run."""
        faulthandler.dump_traceback_later(seconds, exit=True)
        self._timer.cancel()
        self._timer = threading.Timer(max(0.0, seconds - EXPLAIN_SECONDS), self._explain)
        self._timer.daemon = True
        self._timer.start()

    def _explain(self) -> None:
        print(
            f"xl3m: no progress for {self.seconds:g} s, so this worker ends; the stack traces of "
            "its threads follow. If one is in the model, which may only be slow, a forward takes "
            "too long on this machine: lower XL3M_BATCH_TOKENS, or raise XL3M_WATCHDOG_SECONDS",
            file=sys.stderr,
            flush=True,
        )
