"""SkipWarning: tells of segments that were deleted before the model read them."""

import logging
from collections.abc import Callable

from stream_app.runtime.log_throttle import LogThrottle
from stream_app.settings import variable

logger = logging.getLogger("xl3m")


class SkipWarning:
    """Logs it at once and then ever more rarely. on_skipped: called with each number of them."""

    def __init__(self, on_skipped: Callable[[int], None]) -> None:
        self.on_skipped = on_skipped
        self.count = 0
        self._throttle = LogThrottle()

    def note(self, stream: str, count: int) -> None:
        """So many segments of the stream were deleted unread, for one question."""
        if not count:
            return
        self.count += count
        self.on_skipped(count)
        if self._throttle.due() is not None:
            logger.warning(
                "the model is slower than stream %r: retention deleted %d segments before they were"
                " scored; add workers, use a faster model, or raise %s and %s",
                stream, self.count, variable("retention_segments"), variable("retention_bytes"),
            )  # fmt: skip
            self.count = 0
