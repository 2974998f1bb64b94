"""Notes: warnings about events that could be used in spite of a flaw, such as an unknown time.

Each one is counted, and logged once per stream and form, up to a bound.
"""

import logging
import re
from collections.abc import Callable
from typing import Any

from stream_app.formats.keys import hint

logger = logging.getLogger("xl3m")

MAX_FORMS = 1000
"""Forms of a time that are logged."""
SHOWN = 60
"""Characters of a value in the log."""


def _nothing() -> None:
    """The default of a counter."""


class Notes:
    """One per worker. Each `on_...` is called once per event that it counts."""

    def __init__(
        self,
        on_skipped: Callable[[], None] = _nothing,
        on_missing_key: Callable[[], None] = _nothing,
        on_unparsed_time: Callable[[], None] = _nothing,
    ) -> None:
        self.on_skipped = on_skipped
        self.on_missing_key = on_missing_key
        self.on_unparsed_time = on_unparsed_time
        self._forms: set[tuple[str, str]] = set()
        self._named_key = False

    def unparsed_time(self, stream: str, value: Any) -> None:
        """A time that was not understood; Kafka's timestamp replaces it."""
        self.on_unparsed_time()
        if self._is_new(stream, _form(value)):
            logger.warning(
                "stream %r: the time %s is not understood; Kafka's timestamp replaces all times of "
                "this form; see %s%s",
                *(stream, _shown(value), "XL3M_TIME_FIELD", self._last),
            )

    def untimed_line(self, stream: str, text: str) -> None:
        """A text in which no line has a time; lines of stack traces often have none."""
        self.on_unparsed_time()
        if self._is_new(stream, "line"):
            logger.warning(
                "stream %r: the line %s has no time; Kafka's timestamp is used for all such lines; "
                "see %s%s",
                *(stream, _shown(text), "XL3M_TIME_FROM_LINE", self._last),
            )

    def binary_key(self, key: bytes) -> None:
        """A key that is valid text but looks binary."""
        if not self._named_key:
            self._named_key = True
            logger.warning(
                "the key %r names a stream, but looks binary: %s", key[:SHOWN], hint(key)
            )

    def _is_new(self, stream: str, form: str) -> bool:
        """Whether to log the form."""
        if (stream, form) in self._forms or len(self._forms) >= MAX_FORMS:
            return False
        self._forms.add((stream, form))
        return True

    @property
    def _last(self) -> str:
        return "; further forms are not logged" if len(self._forms) == MAX_FORMS else ""


def _form(value: Any) -> str:
    """The form of a value: its letters and digits made equal."""
    if not isinstance(value, str):
        return type(value).__name__
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", value[:SHOWN]))


def _shown(value: Any) -> str:
    shown = repr(value[:SHOWN] if isinstance(value, str | list) else value)
    return shown if len(shown) <= 2 * SHOWN else shown[: 2 * SHOWN] + "…"
