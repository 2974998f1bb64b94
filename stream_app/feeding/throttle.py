"""Throttle: limits how far sending may be ahead of the workers.

Needed on librdkafka's mock cluster, which silently drops records it has no room for.
"""

import asyncio
import logging
from collections import deque
from typing import Any

from stream_app.store.store import StreamStore

logger = logging.getLogger("xl3m")

# The mock cluster keeps 5 MB of a partition; less than that is unconsumed, over all partitions.
MAX_UNCONSUMED_BYTES = 1 << 20
LOOK_SECONDS = 0.2
WARN_AFTER_SECONDS = 10.0


class Throttle:
    """Keeps the bytes that are sent and not yet consumed below a limit."""

    def __init__(self, store: StreamStore, limit: int = MAX_UNCONSUMED_BYTES) -> None:
        self.store = store
        self.limit = limit
        self.unconsumed: deque[tuple[str, int, int]] = deque()
        self.bytes = 0
        self._lock = asyncio.Lock()

    async def wait(self, sent: Any, size: int) -> None:
        """Count an event that the broker has; return when less than the limit is unconsumed.

        sent: the record's metadata (topic, partition, offset); size: its bytes.
        """
        self.unconsumed.append((f"{sent.topic}/{sent.partition}", sent.offset, size))
        self.bytes += size
        async with self._lock:
            waited = 0.0
            while self.bytes > self.limit:
                if not await self._consumed_one():
                    await asyncio.sleep(LOOK_SECONDS)
                    waited += LOOK_SECONDS
                    if round(waited, 1) == WARN_AFTER_SECONDS:
                        logger.warning("waiting for a worker to consume: is `xl3m worker` running?")

    async def _consumed_one(self) -> bool:
        """Drop the oldest unconsumed event from the count, if a worker has consumed it."""
        partition, offset, size = self.unconsumed[0]
        position, _ = await self.store.partitions.position(partition)
        if position is None or position <= offset:
            return False
        self.unconsumed.popleft()
        self.bytes -= size
        return True
