"""Polled: the records that one poll brought of a partition, through Faust as a single message.

Faust takes some 90 microseconds for a message, whatever it says: so it is paid once for a poll,
not once for an event. The message stands at the last record's offset, and is acknowledged when the
last event is. Knows Kafka's records and Faust's events; not what they say.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from aiokafka import ConsumerRecord

Record: TypeAlias = ConsumerRecord[bytes, Any]


@dataclass
class RangeRecord(ConsumerRecord[bytes, Any]):  # type: ignore[misc]  # aiokafka has no types
    """A record that accounts for offsets before it, from `begins` on. unreadable: why they cannot
    be read; empty: there is nothing to read at them. Both are acknowledged like any other."""

    begins: int = 0
    unreadable: str = ""
    empty: bool = False


@dataclass(eq=False, slots=True)
class Event:
    """A record as an event. poll: Faust's event, of the last one of a poll: it holds on to that
    for as long as any of the poll is under way, since all before it are done before."""

    message: Record
    poll: Any = None

    def ack(self) -> bool:
        """Whether that acknowledged the poll."""
        return self.poll is not None and bool(self.poll.ack())


def bundle(records: Sequence[Record]) -> Record:
    """What Faust is given for them, at least one, of one partition."""
    last = records[-1]
    if isinstance(last, RangeRecord):
        last = replace(last, unreadable="", empty=False)
    return replace(last, key=None, value=[*records])


def unbundle(poll: Any) -> list[Event]:
    """The events of a poll, in the order of offsets. It keeps none of their bytes."""
    events = [*map(Event, poll.message.value)]
    events[-1].poll = poll
    poll.message.value.clear()
    return events


def begins(message: Any) -> int:
    """The first offset that a message accounts for: its own, as a rule."""
    return int(getattr(message, "begins", message.offset))


def unreadable(message: Any) -> str:
    """Why what is at the message's offsets cannot be read; empty if it can."""
    return str(getattr(message, "unreadable", ""))


def is_empty(message: Any) -> bool:
    """Whether there is nothing to read at its offsets: the marks of transactions, say."""
    return bool(getattr(message, "empty", False))


def time_ms(message: Any) -> int:
    """When it was written by Kafka's account; now, if that says nothing or a time before 1970."""
    written = message.timestamp
    return written if written is not None and written >= 0 else int(time.time() * 1000)
