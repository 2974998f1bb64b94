"""Polled: the records that one poll brought of a partition, through Faust as a single message.

Faust takes some 90 microseconds for a message, whatever it says: so it is paid once for a poll,
not once for an event. The message stands at the last record's offset, and is acknowledged when the
last event is. Knows Kafka's records and Faust's events; not what they say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from aiokafka import ConsumerRecord

Record: TypeAlias = ConsumerRecord[bytes, Any]


@dataclass(eq=False, slots=True)
class Event:
    """A record as an event. poll: Faust's event, of the last one of a poll: it holds on to that
    for as long as any of the poll is under way, since all before it are done before."""

    message: Record
    poll: Any = None

    def ack(self) -> bool:
        """Whether that acknowledged the poll."""
        return self.poll is not None and bool(self.poll.ack())


def together(records: Sequence[Record]) -> Record:
    """What Faust is given for them, at least one, of one partition."""
    return replace(records[-1], key=None, value=[*records])


def apart(poll: Any) -> list[Event]:
    """The events of a poll, in the order of offsets. It keeps none of their bytes."""
    events = [*map(Event, poll.message.value)]
    events[-1].poll = poll
    poll.message.value.clear()
    return events
