"""Memory metrics: how much memory streams take in Redis, by Redis' own count.

Counting costs a command per key, so a worker counts a few of its streams at a time and estimates
the total from those.
"""

import asyncio
import logging

from stream_app.scoring.streams import StreamRegistry
from stream_app.store.connection import RedisError
from stream_app.store.store import StreamStore

logger = logging.getLogger("xl3m")

INTERVAL_SECONDS = 10.0
MAX_COMMANDS = 100
"""Commands in one interval; a stream with more keys than that is counted alone."""


class MemorySampler:
    """One per worker. sizes: bytes of each owned stream when it was last counted; the one counted
    longest ago comes first."""

    def __init__(self, store: StreamStore, streams: StreamRegistry) -> None:
        self.store = store
        self.streams = streams
        self.sizes: dict[str, int] = {}

    @property
    def total(self) -> float:
        """Bytes of all owned streams; one that was not counted yet is estimated by the average."""
        owned = self.streams.totals.by_stream
        known = [self.sizes[stream] for stream in owned if stream in self.sizes]
        return sum(known) / len(known) * len(owned) if known else 0.0

    @property
    def largest(self) -> int:
        """Bytes of the largest owned stream that was counted."""
        owned = self.streams.totals.by_stream
        return max((self.sizes.get(stream, 0) for stream in owned), default=0)

    async def run(self) -> None:
        """Count some streams in each interval; an error is no reason to stop."""
        while True:
            try:
                await self.sample()
            except (RedisError, OSError) as error:  # such as missing rights in Redis
                logger.debug("the memory of streams was not counted: %s", error)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def sample(self) -> None:
        """Count as many streams as the commands allow, new ones first, then the oldest counts."""
        owned, remaining = self.streams.totals.by_stream, MAX_COMMANDS
        self.sizes = {stream: size for stream, size in self.sizes.items() if stream in owned}
        new = [stream for stream in owned if stream not in self.sizes]
        for stream in [*new, *self.sizes][:MAX_COMMANDS]:
            size, commands = await self.store.memory_usage(stream)
            self.sizes.pop(stream, None)
            self.sizes[stream] = size
            remaining -= commands
            if remaining <= 0:
                break
