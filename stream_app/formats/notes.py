"""Notes: what decoding has to tell of events that it could use all the same.

Counted each time, named in the log once for each stream and form, within a bound. Knows what may
be odd about an event; no metrics and no events.
"""

import logging
import re
from collections.abc import Callable
from typing import Any

from stream_app.formats.keys import hint

logger = logging.getLogger("xl3m")

NAMED = 1000
"""Forms of a time; the log names no more."""
SHOWN = 60
"""Characters of a value."""


def _nothing() -> None:
    """Nobody counts."""


class Notes:
    """One per worker. Each `on_…` is called once for what it counts."""

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
        """A time that was not understood, so that Kafka's stands in for it."""
        self.on_unparsed_time()
        if self._is_new(stream, _form(value)):
            logger.warning(
                "stream %r: the time %s is not understood, so Kafka's is taken, here and in all of "
                "that form; see %s%s",
                *(stream, _shown(value), "XL3M_TIME_FIELD", self._last),
            )

    def untimed_line(self, stream: str, text: str) -> None:
        """A text in which no line has a time of its own: those of traces often have none."""
        self.on_unparsed_time()
        if self._is_new(stream, "line"):
            logger.warning(
                "stream %r: no time stands in the line %s, so Kafka's is taken, here and in all "
                "such lines; see %s%s",
                *(stream, _shown(text), "XL3M_TIME_FROM_LINE", self._last),
            )

    def binary_key(self, key: bytes) -> None:
        """A key that is text, but hardly meant so."""
        if not self._named_key:
            self._named_key = True
            logger.warning(
                "the key %r names a stream, but looks binary: %s", key[:SHOWN], hint(key)
            )

    def _is_new(self, stream: str, form: str) -> bool:
        """Whether the form is to be named."""
        if (stream, form) in self._forms or len(self._forms) >= NAMED:
            return False
        self._forms.add((stream, form))
        return True

    @property
    def _last(self) -> str:
        return "; no further form is named" if len(self._forms) == NAMED else ""


def _form(value: Any) -> str:
    """What values of one kind have in common."""
    if not isinstance(value, str):
        return type(value).__name__
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", value[:SHOWN]))


def _shown(value: Any) -> str:
    shown = repr(value[:SHOWN] if isinstance(value, str | list) else value)
    return shown if len(shown) <= 2 * SHOWN else shown[: 2 * SHOWN] + "…"
