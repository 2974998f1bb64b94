"""Queues: events between Faust's stream and the next batch, a queue for each partition.

A partition whose streams are far behind is held: its events stay in their queue while others' go
by. A full queue stops the fetching of its partition alone. When partitions change hands Faust
clears the queues along with its own queues. Knows events and where they came from, not what they
say.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from stream_app.kafka.polled import unbundle

BATCH_EVENTS = 512
QUEUE_EVENTS = 2048


@dataclass(eq=False, slots=True)
class PartitionBuffer:
    """The events of one partition (topic, number) that are at hand, in the order of offsets."""

    partition: tuple[str, int]
    events: deque[Any] = field(default_factory=deque)
    bytes: int = 0
    paused: bool = False

    def put(self, events: Sequence[Any]) -> None:
        """Behind all others."""
        self.events.extend(events)
        self.bytes += sum(map(size, events))

    def take(self) -> Any:
        """The first one."""
        event = self.events.popleft()
        self.bytes -= size(event)
        return event


class PartitionBuffers:
    """A queue is full, and a batch closed, at max_bytes, or at so many events.

    name: of the partition a message came from; held: those whose events are not to be taken now.
    Nothing here ever waits for room, since what waits for one partition would hold up the others:
    what was fetched already when a queue is full goes into it all the same.
    """

    def __init__(
        self, max_bytes: int, name: Callable[[Any], str], held: Callable[[], Container[str]]
    ) -> None:
        self.max_bytes = max_bytes
        self.name = name
        self.throttled = held
        self.queues: dict[str, PartitionBuffer] = {}  # none is empty; whose turn it is comes first
        self.pause: Callable[[tuple[str, int]], None] = lambda partition: None
        self.resume: Callable[[tuple[str, int]], None] = lambda partition: None
        self.discard: Callable[[Any], None] = lambda event: None
        self._held: Container[str] = ()
        self._look = asyncio.Event()

    @property
    def empty(self) -> bool:
        """Whether no event is at hand."""
        return not self.queues

    async def fill(self, polls: AsyncIterator[Any]) -> None:
        """Take in the events of polls for as long as they come."""
        async for poll in polls:
            self.put(unbundle(poll))

    def put(self, events: Sequence[Any]) -> None:
        """Some of one partition, into its queue."""
        message = events[0].message
        name = self.name(message)
        if name not in self.queues:
            self.queues[name] = PartitionBuffer((message.topic, message.partition))
        queue = self.queues[name]
        queue.put(events)
        if self._is_full(queue):
            queue.paused = True
            self.pause(queue.partition)
        if name not in self._held:
            self.wake()

    def wake(self) -> None:
        """There may be something to take now."""
        self._look.set()

    async def batch(self) -> list[Any]:
        """At least one event, and what lies ready within the bounds, of queues in turn."""
        while not (names := self._open()):
            self._look.clear()
            await self._look.wait()
        turn, batch, taken = deque(names), list[Any](), 0
        while turn and len(batch) < BATCH_EVENTS and taken < self.max_bytes:
            name = turn.popleft()
            batch.append(event := self._take(name))
            taken += size(event)
            if name in self.queues:
                turn.append(name)
        return batch

    def clear(self) -> None:
        """Let everything go, unacknowledged: it comes again, to whoever owns its partition then.

        Called by Faust when partitions are revoked, before it waits for what is under way: so
        what is held can't hold up a rebalance.
        """
        for queue in self.queues.values():
            for event in queue.events:
                self.discard(event)
        self.queues.clear()

    def _open(self) -> list[str]:
        """Queues that events may be taken from."""
        self._held = self.throttled() if self.queues else ()
        return [name for name in self.queues if name not in self._held]

    def _take(self, name: str) -> Any:
        """A queue's first event; the queue's next turn is behind all others'."""
        queue = self.queues.pop(name)
        event = queue.take()
        if queue.events:
            self.queues[name] = queue
        if queue.paused and not self._is_full(queue):
            queue.paused = False
            self.resume(queue.partition)
        return event

    def _is_full(self, queue: PartitionBuffer) -> bool:
        return queue.bytes >= self.max_bytes or len(queue.events) >= QUEUE_EVENTS


def size(event: Any) -> int:
    """Bytes of what an event says."""
    return len(event.message.value or b"")
