"""LogThrottle: what would be said again and again is said at once, and then ever more rarely.

For lines about something that fails for hours, with a count of those left out; as a filter it does
so for every line that comes over and over, whoever says it. Knows clocks and log records.
"""

import logging
import time
from collections.abc import Callable, Hashable

FIRST_SECONDS = 5.0
MOST_SECONDS = 300.0
OFTEN = 5
"""So many lines of a kind go through before the rest is left out."""
KINDS = 256
OURS = "xl3m"


class LogThrottle:
    """When to say one thing: at once, then after 5 s, and each time twice as long up to 5 min."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.last = clock()
        self.pause = 0.0
        self.left_out = 0

    def due(self) -> int | None:
        """How many were left out since it was last said; None if this one is to be, too."""
        now = self.clock()
        if self.pause and now - self.last < self.pause:
            self.left_out += 1
            return None
        self.last, left_out, self.left_out = now, self.left_out, 0
        self.pause = min(max(2 * self.pause, FIRST_SECONDS), MOST_SECONDS)
        return left_out


class RepeatFilter(logging.Filter):
    """Of libraries' warnings and errors of one kind some go through, then one now and then: Kafka's
    client has several for every try. A kind: who says it, how it is worded, and what error goes
    with it. What has been quiet for ten minutes is new. Our own lines know when to come."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.clock = clock
        self.kinds: dict[Hashable, tuple[int, LogThrottle]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record goes through; it says how many like it did not."""
        if record.levelno < logging.WARNING or record.name.partition(".")[0] == OURS:
            return True
        error = record.exc_info[0] if record.exc_info else None
        kind = (record.name, record.levelno, str(record.msg)[:200], error)
        count, throttle = self.kinds.pop(kind, (0, LogThrottle(self.clock)))
        if self.clock() - throttle.last > 2 * MOST_SECONDS:
            count, throttle = 0, LogThrottle(self.clock)
        self.kinds[kind] = (count + 1, throttle)  # now the last to be forgotten
        while len(self.kinds) > KINDS:
            del self.kinds[next(iter(self.kinds))]
        if count < OFTEN:
            throttle.last = self.clock()
            return True
        left_out = throttle.due()
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out} lines like this were left out)"
            record.args = None
        return left_out is not None
