"""Log throttling: a line that repeats is logged at once and then ever more rarely.

`LogThrottle` is for one failure that may last for hours; `RepeatFilter` applies the same to every
line that libraries repeat. Both count the lines they omit.
"""

import logging
import time
from collections.abc import Callable, Hashable

FIRST_SECONDS = 5.0
MAX_SECONDS = 300.0
UNTHROTTLED_LINES = 5
"""Lines of a kind that are logged before throttling starts."""
MAX_KINDS = 256
OWN_LOGGER = "xl3m"


class LogThrottle:
    """When to log one line: at once, after 5 s, then at intervals that double up to 5 minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.last = clock()
        self.pause = 0.0
        self.omitted = 0

    def due(self) -> int | None:
        """None if the line is to be omitted; else how many were omitted since the last one."""
        now = self.clock()
        if self.pause and now - self.last < self.pause:
            self.omitted += 1
            return None
        self.last, omitted, self.omitted = now, self.omitted, 0
        self.pause = min(max(2 * self.pause, FIRST_SECONDS), MAX_SECONDS)
        return omitted


class RepeatFilter(logging.Filter):
    """Throttles the warnings and errors of libraries by kind: Kafka's client logs several for every
    attempt. A kind is a logger, a level, a message before formatting and an exception. A kind that
    was quiet for ten minutes is new. Our own lines are not filtered."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.clock = clock
        self.kinds: dict[Hashable, tuple[int, LogThrottle]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the record; it is given the number of lines omitted before it."""
        if record.levelno < logging.WARNING or record.name.partition(".")[0] == OWN_LOGGER:
            return True
        error = record.exc_info[0] if record.exc_info else None
        kind = (record.name, record.levelno, str(record.msg)[:200], error)
        count, throttle = self.kinds.pop(kind, (0, LogThrottle(self.clock)))
        if self.clock() - throttle.last > 2 * MAX_SECONDS:
            count, throttle = 0, LogThrottle(self.clock)
        self.kinds[kind] = (count + 1, throttle)  # now the last to be forgotten
        while len(self.kinds) > MAX_KINDS:
            del self.kinds[next(iter(self.kinds))]
        if count < UNTHROTTLED_LINES:
            throttle.last = self.clock()
            return True
        omitted = throttle.due()
        if omitted:
            record.msg = f"{record.getMessage()} ({omitted} lines like this were omitted)"
            record.args = ()  # not None, of which the formatter of mode makes an argument
        return omitted is not None
