"""Progress: how far a long run has come, and when it will be done, in a line now and then."""

import sys
import time

EVERY_S = 30.0


class Progress:
    """Counts tokens, and writes to stderr how many are left.

    total: tokens of the whole run; every: seconds between two lines.
    """

    def __init__(self, name: str, total: int, every: float = EVERY_S) -> None:
        self.name, self.total, self.every, self.done = name, total, every, 0
        self.started = self.told = time.monotonic()

    def add(self, tokens: int) -> None:
        """So many more are done."""
        self.done += tokens
        now = time.monotonic()
        if now - self.told >= self.every:
            self.told = now
            print(self.line(now - self.started), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """How it stands after so many seconds."""
        rate = self.done / max(seconds, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        return (
            f"{self.name}: {self.done:,} of {self.total:,} tokens read, {rate:,.0f} a second, "
            f"{_span(left)} left"
        )


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
