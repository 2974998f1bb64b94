"""Weights: how much memory streams take in Redis, as Redis itself reckons it.

To ask costs a command a key, so a worker asks about a few of its streams at a time and says what
all of them come to by these. Knows the layout in Redis; not what is in it.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from stream_app.store.connection import RedisError
from stream_app.store.store import StreamStore

if TYPE_CHECKING:  # commands weigh streams too, and wait for no model's libraries
    from stream_app.scoring.streams import StreamRegistry

logger = logging.getLogger("xl3m")

EVERY_SECONDS = 10.0
COMMANDS = 100
"""At a time; a stream with more keys than that is weighed alone."""


class MemorySampler:
    """One per worker: what the streams it owns weighed when it was last their turn."""

    def __init__(self, store: StreamStore, streams: "StreamRegistry") -> None:
        self.store = store
        self.streams = streams
        self.of: dict[str, int] = {}

    @property
    def total(self) -> float:
        """Of all owned streams; of those not weighed yet, as much as the others on average."""
        known = [self.of[stream] for stream in self.streams.totals.by_stream if stream in self.of]
        return sum(known) / len(known) * len(self.streams.totals.by_stream) if known else 0.0

    @property
    def largest(self) -> int:
        """Of the owned streams that were weighed."""
        return max((self.of.get(stream, 0) for stream in self.streams.totals.by_stream), default=0)

    async def run(self) -> None:
        """Weigh some, wait, weigh the next; a Redis that is away is asked the next time."""
        while True:
            try:
                await self.sample()
            except (RedisError, OSError) as error:  # no rights to ask, say
                logger.debug("streams are not weighed: %s", error)
            await asyncio.sleep(EVERY_SECONDS)

    async def sample(self) -> None:
        """As many streams as there are commands for, those weighed longest ago first."""
        owned, left = self.streams.totals.by_stream, COMMANDS
        self.of = {stream: size for stream, size in self.of.items() if stream in owned}
        new = [stream for stream in owned if stream not in self.of]
        for stream in [*new, *self.of][:COMMANDS]:
            size, commands = await self.store.memory_usage(stream)
            self.of.pop(stream, None)
            self.of[stream] = size  # now last in turn
            left -= commands
            if left <= 0:
                break
