"""Watchdog: ends a worker that holds work and gets nowhere.

Faust's own detection is switched off, because its limit on the time between two polls would
throw a worker out for good that merely waits for a slow model. The timer is the
interpreter's, so it goes off even when the event loop is stuck. Knows signs of life only.
"""

import asyncio
import faulthandler
import time
from collections.abc import Callable, Hashable


class Watchdog:
    """signs: changes whenever something gets done; busy: whether there is anything to do."""

    def __init__(
        self, seconds: float, signs: Callable[[], Hashable], busy: Callable[[], bool]
    ) -> None:
        self.seconds = seconds
        self.signs = signs
        self.busy = busy

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
                    faulthandler.dump_traceback_later(left + 1, exit=True)
                await asyncio.sleep(min(1.0, self.seconds / 4))
        finally:
            faulthandler.cancel_dump_traceback_later()
