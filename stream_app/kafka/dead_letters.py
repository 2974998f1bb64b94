"""Dead letters: events that cannot be used go to a topic of their own and into the log.

Every one is sent. Of many with the same topic and reason, the log has the first few, and then a
regular count of the others.
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

LOGGED_EVENTS = 5
"""Events of a kind that are logged one by one; the others are counted."""
INTERVAL_SECONDS = 60.0
"""Time between two counts in the log."""
MAX_KINDS = 256
# Reasons contain numbers and names, which are removed to find events of the same kind.
_PARTICULARS = re.compile(r"\d+|'[^']*'|\"[^\"]*\"")

Send = Callable[[bytes | None, bytes], Awaitable[None]]
DeadLetter = Callable[[Event, str], Awaitable[None]]


@dataclass(slots=True)
class _Kind:
    """Events with the same topic and reason. logged: one by one; counted: since the last summary;
    last: the latest of them; is_new: whether there were any since the last summary."""

    logged: int = 0
    counted: int = 0
    last: str = ""
    is_new: bool = True


class DeadLetterLog:
    """One per worker."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[str, str], _Kind] = {}

    async def run(self) -> None:
        """Log the counts at each interval, and at the end."""
        try:
            while True:
                await asyncio.sleep(INTERVAL_SECONDS)
                self.summarise()
        finally:
            self.summarise()

    def note(self, topic: str, where: str, reason: str) -> None:
        """Log an event, or count it."""
        kind = self._kind(topic, _PARTICULARS.sub("…", reason))
        kind.is_new = True
        if kind.logged < LOGGED_EVENTS:
            kind.logged += 1
            logger.warning("%s: %s", where, reason)
        else:
            kind.counted += 1
            kind.last = f"{where}: {reason}"

    def summarise(self) -> None:
        """Log one line per kind with counted events. A kind without new events since the last
        summary is dropped: its next events are logged one by one again."""
        for key, kind in list(self.kinds.items()):
            self._summarise(key[0], kind)
            if not kind.is_new:
                del self.kinds[key]
            kind.is_new = False

    def _summarise(self, topic: str, kind: _Kind) -> None:
        if kind.counted:
            logger.warning(
                "%s: %d more dead letters for this reason, the last of them: %s",
                topic, kind.counted, kind.last,
            )  # fmt: skip
        kind.counted = 0

    def _kind(self, topic: str, reason: str) -> _Kind:
        key = topic, reason
        if key not in self.kinds:
            if len(self.kinds) >= MAX_KINDS:
                oldest = next(iter(self.kinds))
                self._summarise(oldest[0], self.kinds.pop(oldest))
            self.kinds[key] = _Kind()
        return self.kinds[key]


def dead_letter_sender(
    send: Send, on_sent: Callable[[], None] = lambda: None, log: DeadLetterLog | None = None
) -> DeadLetter:
    """A function that sends an event to the topic of dead letters with a reason. on_sent: called
    for each."""
    log = log or DeadLetterLog()

    async def send_letter(event: Event, reason: str) -> None:
        m, first = event.message, event.message.offset
        if unread := unreadable_reason(m):
            first = first_offset(m)
            reason = unread if first == m.offset else f"{unread}: offsets {first} to {m.offset}"
        log.note(m.topic, f"{m.topic}/{m.partition} offset {first}", reason)
        # The event's key keeps its dead letters in order, unless the key itself is unusable.
        key = m.key if m.key and len(m.key) <= STREAM_BYTES else None
        letter = dead_letter(m.topic, m.partition, first, m.key, m.value, reason, headers_of(m))
        await send(key, letter)
        on_sent()

    return send_letter


def headers_of(message: Message) -> list[tuple[Any, bytes | None]]:
    """A record's headers as a list, from aiokafka's or Faust's form."""
    headers = getattr(message, "headers", None) or ()
    return list(headers.items() if hasattr(headers, "items") else headers)
