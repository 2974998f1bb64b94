"""Pace: on a broker that silently drops what it has no room for, sending waits for the consumer.

Knows what the workers have consumed; nothing of what is sent.
"""

import asyncio
import logging
from collections import deque
from typing import Any

from stream_app.store.store import StreamStore

logger = logging.getLogger("xl3m")

# What librdkafka's mock cluster keeps of a partition is 5 MB; no more than this is ahead of
# the consumer, in all partitions together.
MAX_UNCONSUMED_BYTES = 1 << 20
LOOK_SECONDS = 0.2
WORTH_SAYING = 10.0


class Throttle:
    """Keeps what is sent and not yet consumed below a bound."""

    def __init__(self, store: StreamStore, limit: int = MAX_UNCONSUMED_BYTES) -> None:
        self.store = store
        self.limit = limit
        self.ahead: deque[tuple[str, int, int]] = deque()
        self.bytes = 0
        self._turn = asyncio.Lock()

    async def wait(self, sent: Any, size: int) -> None:
        """Note an event that the broker has; return when the consumer is near enough."""
        self.ahead.append((f"{sent.topic}/{sent.partition}", sent.offset, size))
        self.bytes += size
        async with self._turn:
            waited = 0.0
            while self.bytes > self.limit:
                if not await self._consumed_one():
                    await asyncio.sleep(LOOK_SECONDS)
                    waited += LOOK_SECONDS
                    if round(waited, 1) == WORTH_SAYING:
                        logger.warning("waiting for a worker to consume what was fed")

    async def _consumed_one(self) -> bool:
        """Let go of the oldest event ahead of the consumer, if it is no longer ahead."""
        partition, offset, size = self.ahead[0]
        position, _ = await self.store.partitions.position(partition)
        if position is None or position <= offset:
            return False
        self.ahead.popleft()
        self.bytes -= size
        return True
