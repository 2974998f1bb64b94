"""Watchdog: ends a worker that holds work and gets nowhere.

Faust's own detection is switched off, because its limit on the time between two polls would
throw a worker out for good that merely waits for a slow model. The timer is the
interpreter's, so it goes off even when the event loop is stuck. Knows signs of life only.
"""

import asyncio
import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Hashable

WARN_BEFORE_SECONDS = 0.5
"""Seconds before the stacks."""


class Watchdog:
    """signs: changes whenever something gets done; busy: whether there is anything to do."""

    def __init__(
        self, seconds: float, signs: Callable[[], Hashable], busy: Callable[[], bool]
    ) -> None:
        self.seconds = seconds
        self.signs = signs
        self.busy = busy
        self._timer = threading.Timer(0, self._say)

    async def run(self) -> None:
        """Put the timer off for as long as there is progress, or nothing to do."""
        seen, since = self.signs(), time.monotonic()
        try:
            while True:
                signs = self.signs()
                if signs != seen or not self.busy():
                    seen, since = signs, time.monotonic()
                left = self.seconds - (time.monotonic() - since)
                if left > 0:
                    self._put_off(left + 1)
                await asyncio.sleep(min(1.0, self.seconds / 4))
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._timer.cancel()

    def _put_off(self, seconds: float) -> None:
        """Have the process end so much later. What the interpreter prints then are stacks alone, so
        a thread of ours says first what they are about: just before, and only if it gets to run."""
        faulthandler.dump_traceback_later(seconds, exit=True)
        self._timer.cancel()
        self._timer = threading.Timer(max(0.0, seconds - WARN_BEFORE_SECONDS), self._say)
        self._timer.daemon = True
        self._timer.start()

    def _say(self) -> None:
        print(
            f"xl3m: nothing was done for {self.seconds:g} s, so this worker ends; below is where "
            "each of its threads is. If it is in the model, which may be slow only, one forward "
            "takes too long here: lower XL3M_BATCH_TOKENS, or raise XL3M_WATCHDOG_SECONDS",
            file=sys.stderr,
            flush=True,
        )
