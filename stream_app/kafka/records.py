"""Records between aiokafka, Faust and the agents.

Faust spends about 90 microseconds on a message of any size. So all records that one poll
returns for a partition travel through Faust as one message, a bundle: the cost is paid once per
poll, not once per record. A bundle has the offset of its last record and is acknowledged together
with the last of its events.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from aiokafka import ConsumerRecord

from stream_app.errors import BadEvent

Record: TypeAlias = ConsumerRecord[bytes, Any]


class Message(Protocol):
    """A record, in the form of aiokafka or of Faust."""

    @property
    def topic(self) -> str:
        """The name of its topic."""

    @property
    def partition(self) -> int:
        """The number of its partition."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def key(self) -> Any:
        """Bytes, or None."""

    @property
    def value(self) -> Any:
        """Bytes, or None. Of a bundle: its records."""

    @property
    def timestamp(self) -> float | None:
        """When it was written: in milliseconds for aiokafka, in seconds for Faust."""


class Event(Protocol):
    """A message that can be acknowledged: an event of Faust or of a bundle."""

    @property
    def message(self) -> Message:
        """What was received."""

    def ack(self) -> bool:
        """Mark the message as done; its offset is committed with the next commit."""


@dataclass
class RangeRecord(ConsumerRecord[bytes, Any]):  # type: ignore[misc]  # aiokafka has no types
    """A record that covers all offsets from `first_offset` to its own.

    unreadable: why these offsets cannot be read. empty: there is nothing to read at them, for
    example transaction markers. Both are acknowledged like any other record.
    """

    first_offset: int = 0
    unreadable: str = ""
    empty: bool = False


@dataclass(eq=False, slots=True)
class BundledEvent:
    """A record of a bundle as an event. bundle: Faust's event, set on the last record only; it
    stays referenced until that one is acknowledged, and all before it are acknowledged earlier."""

    message: Record
    bundle: Event | None = None

    def ack(self) -> bool:
        """Whether this acknowledged the bundle."""
        return self.bundle is not None and bool(self.bundle.ack())


def bundle(records: Sequence[Record]) -> Record:
    """One record for Faust that carries all of `records`: at least one, all of one partition."""
    last = records[-1]
    if isinstance(last, RangeRecord):
        last = replace(last, unreadable="", empty=False)
    return replace(last, key=None, value=[*records])


def unbundle(event: Event) -> list[BundledEvent]:
    """The events of a bundle in the order of offsets. The bundle's own list is emptied, so that it
    does not keep their bytes in memory."""
    records = event.message.value
    events = [*map(BundledEvent, records)]
    events[-1].bundle = event
    records.clear()
    return events


def first_offset(message: Message) -> int:
    """The first offset that a message covers: usually its own."""
    return int(getattr(message, "first_offset", message.offset))


def unreadable_reason(message: Message) -> str:
    """Why the message's offsets cannot be read; empty if they can."""
    return str(getattr(message, "unreadable", ""))


def check_readable(message: Message) -> None:
    """Raise BadEvent with the reason if the message could not be read from Kafka."""
    if reason := unreadable_reason(message):
        raise BadEvent(reason)


def is_empty(message: Message) -> bool:
    """Whether there is nothing to read at the message's offsets, for example transaction
    markers."""
    return bool(getattr(message, "empty", False))


def time_ms(message: Message) -> int:
    """Kafka's timestamp of a record; the present time if there is none, or one before 1970."""
    written = message.timestamp
    return int(written if written is not None and written >= 0 else time.time() * 1000)
