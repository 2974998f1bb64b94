"""PartitionBuffers: events between Faust's stream and the next batch, one buffer per partition.

A partition whose streams are far behind is throttled: its events stay in the buffer, and other
partitions' events pass. A full buffer stops fetching for its partition only. Faust clears the
buffers together with its own when partitions are revoked.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Container, Sequence
from dataclasses import dataclass, field

from stream_app.kafka.records import Event, Message, unbundle

BATCH_EVENTS = 512
"""Events in a batch at most."""
BUFFER_EVENTS = 2048
"""The number of events at which a buffer is full."""


@dataclass(eq=False, slots=True)
class PartitionBuffer:
    """Buffered events of one partition (topic, number) in the order of offsets.

    bytes: of their values. paused: whether fetching is stopped because the buffer is full.
    """

    partition: tuple[str, int]
    events: deque[Event] = field(default_factory=deque)
    bytes: int = 0
    paused: bool = False

    def extend(self, events: Sequence[Event]) -> None:
        """Append events."""
        self.events.extend(events)
        self.bytes += sum(map(size, events))

    def popleft(self) -> Event:
        """Remove and return the first event."""
        event = self.events.popleft()
        self.bytes -= size(event)
        return event


class PartitionBuffers:
    """Bounded buffers, and batches from them. A batch is closed, and a buffer is full, at
    `max_bytes`, or at BATCH_EVENTS and BUFFER_EVENTS.

    Nothing here waits for space, because one full partition would then block the others: events
    already fetched go into a full buffer as well.

    name: the name of a message's partition. throttled: names of the partitions to skip now.
    pause, resume: stop and restart the fetching of a partition (topic, number). discard: called
    with each event that is dropped when partitions are revoked.
    """

    def __init__(
        self,
        max_bytes: int,
        name: Callable[[Message], str],
        throttled: Callable[[], Container[str]],
        *,
        pause: Callable[[tuple[str, int]], None] = lambda partition: None,
        resume: Callable[[tuple[str, int]], None] = lambda partition: None,
        discard: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.max_bytes = max_bytes
        self.name = name
        self.throttled = throttled
        self.pause = pause
        self.resume = resume
        self.discard = discard
        # No buffer in here is empty; the next one to be served comes first.
        self.buffers: dict[str, PartitionBuffer] = {}
        self._throttled: Container[str] = ()
        self._wake = asyncio.Event()

    @property
    def empty(self) -> bool:
        """Whether no event is buffered."""
        return not self.buffers

    async def fill(self, bundles: AsyncIterator[Event]) -> None:
        """Buffer the events of bundles until the iterator ends."""
        async for bundle in bundles:
            self.put(unbundle(bundle))

    def put(self, events: Sequence[Event]) -> None:
        """Buffer events, at least one, all of one partition."""
        message = events[0].message
        name = self.name(message)
        if name not in self.buffers:
            self.buffers[name] = PartitionBuffer((message.topic, message.partition))
        buffer = self.buffers[name]
        buffer.extend(events)
        if self._is_full(buffer):
            buffer.paused = True
            self.pause(buffer.partition)
        if name not in self._throttled:
            self.wake()

    def wake(self) -> None:
        """Have `batch` check again whether a partition is not throttled."""
        self._wake.set()

    async def batch(self) -> list[Event]:
        """Wait for an event; return it with those that fit into a batch, partitions in turn."""
        while not (names := self._unthrottled()):
            self._wake.clear()
            await self._wake.wait()
        turns, batch, batch_bytes = deque(names), list[Event](), 0
        while turns and len(batch) < BATCH_EVENTS and batch_bytes < self.max_bytes:
            name = turns.popleft()
            batch.append(event := self._pop(name))
            batch_bytes += size(event)
            if name in self.buffers:
                turns.append(name)
        return batch

    def clear(self) -> None:
        """Drop all events, unacknowledged; they are redelivered to the partitions' next owners.

        Called by Faust when partitions are revoked, before it waits for work in progress: a
        throttled partition cannot hold up a rebalance.
        """
        for buffer in self.buffers.values():
            for event in buffer.events:
                self.discard(event)
        self.buffers.clear()

    def _unthrottled(self) -> list[str]:
        self._throttled = self.throttled() if self.buffers else ()
        return [name for name in self.buffers if name not in self._throttled]

    def _pop(self, name: str) -> Event:
        """The first event of a buffer, which then moves after all others."""
        buffer = self.buffers.pop(name)
        event = buffer.popleft()
        if buffer.events:
            self.buffers[name] = buffer
        if buffer.paused and not self._is_full(buffer):
            buffer.paused = False
            self.resume(buffer.partition)
        return event

    def _is_full(self, buffer: PartitionBuffer) -> bool:
        return buffer.bytes >= self.max_bytes or len(buffer.events) >= BUFFER_EVENTS


def size(event: Event) -> int:
    """Bytes of an event's value."""
    return len(event.message.value or b"")
