"""Dead letters: events that cannot be used go to a topic of their own and into the log.

Every one is sent. Of many of a kind, of one topic and for one reason, the log says the first few,
then from time to time how many more there were. Knows events and a way to send; no format.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from stream_app.events import STREAM_BYTES, dead_letter
from stream_app.kafka.records import Event, Message, first_offset, unreadable_reason

logger = logging.getLogger("xl3m")

# Of a kind so many are said each by itself, then one line each interval.
SAID = 5
INTERVAL_SECONDS = 60.0
# Reasons tell of places and names, which are taken out; still there might be any number of kinds.
KINDS = 256
_PARTICULARS = re.compile(r"\d+|'[^']*'|\"[^\"]*\"")

Send = Callable[[bytes | None, bytes], Awaitable[None]]
DeadLetter = Callable[[Event, str], Awaitable[None]]


@dataclass(slots=True)
class _Kind:
    """said: each by itself; left_out: since the last line; last: the latest of these; is_new:
    whether any came since then."""

    said: int = 0
    left_out: int = 0
    last: str = ""
    is_new: bool = True


class DeadLetterLog:
    """One per worker."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, str], _Kind] = {}

    async def run(self) -> None:
        """Say what was left out, each interval, and at the end."""
        try:
            while True:
                await asyncio.sleep(INTERVAL_SECONDS)
                self.summarise()
        finally:
            self.summarise()

    def note(self, topic: str, where: str, reason: str) -> None:
        """Say it, or count it."""
        kind = self._kind(topic, _PARTICULARS.sub("…", reason))
        kind.is_new = True
        if kind.said < SAID:
            kind.said += 1
            logger.warning("%s: %s", where, reason)
        else:
            kind.left_out += 1
            kind.last = f"{where}: {reason}"

    def summarise(self) -> None:
        """A line for each kind of which any was left out. A kind of which none came since the last
        time is forgotten: the next of it are said again."""
        for key, kind in list(self.kinds.items()):
            self._summarise(key[0], kind)
            if not kind.is_new:
                del self.kinds[key]
            kind.is_new = False

    def _summarise(self, topic: str, kind: _Kind) -> None:
        if kind.left_out:
            logger.warning(
                "%s: %d more refused for such a reason, the last of them: %s",
                topic, kind.left_out, kind.last,
            )  # fmt: skip
        kind.left_out = 0

    def _kind(self, topic: str, reason: str) -> _Kind:
        key = topic, reason
        if key not in self.kinds:
            if len(self.kinds) >= KINDS:
                oldest = next(iter(self.kinds))
                self._summarise(oldest[0], self.kinds.pop(oldest))
            self.kinds[key] = _Kind()
        return self.kinds[key]


def dead_letter_sender(
    send: Send, on_sent: Callable[[], None] = lambda: None, log: DeadLetterLog | None = None
) -> DeadLetter:
    """Puts an event that cannot be used where a person can look at it."""
    log = log or DeadLetterLog()

    async def send_letter(event: Event, reason: str) -> None:
        m, first = event.message, event.message.offset
        if unread := unreadable_reason(m):
            first = first_offset(m)
            reason = unread if first == m.offset else f"{unread}: offsets {first} to {m.offset}"
        log.note(m.topic, f"{m.topic}/{m.partition} offset {first}", reason)
        # The event's key keeps its dead letters in order, unless the key itself is what is wrong.
        key = m.key if m.key and len(m.key) <= STREAM_BYTES else None
        letter = dead_letter(m.topic, m.partition, first, m.key, m.value, reason, headers_of(m))
        await send(key, letter)
        on_sent()

    return send_letter


def headers_of(message: Message) -> list[tuple[Any, bytes | None]]:
    """A record's headers, however the client holds them."""
    headers = getattr(message, "headers", None) or ()
    return list(headers.items() if hasattr(headers, "items") else headers)
