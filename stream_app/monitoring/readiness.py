"""Readiness: whether a worker can do its work now, or the reasons why not.

It is when its partitions were assigned, nothing waits for Redis, and Redis and Kafka answer when
they are asked here and now. Knows whom to ask; not who wants to know.
"""

import asyncio
import time
from collections.abc import Callable

from stream_app.errors import SettingsError, UnreachableError
from stream_app.kafka.topics import open_admin
from stream_app.runtime.retry import Health
from stream_app.settings import Settings
from stream_app.store.connection import RedisError
from stream_app.store.store import StreamStore

# Shorter than those who probe wait for an answer.
PROBE_SECONDS = 2.0
FRESH_SECONDS = 1.0


class Readiness:
    """One per worker. assigned: whether its partitions are, and stay for now. A worker that got
    none because there are too few is ready: it takes over, and answers through Redis."""

    def __init__(
        self, settings: Settings, store: StreamStore, health: Health, assigned: Callable[[], bool]
    ) -> None:
        self.settings = settings
        self.store = store
        self.health = health
        self.assigned = assigned
        self._asked: asyncio.Task[tuple[str, str]] | None = None
        self._since = 0.0

    async def reasons(self) -> dict[str, str]:
        """Why it is not ready, by what is lacking; empty if it is."""
        redis, kafka = await self._services()
        found = {f"step {step}": f"waits: {why}" for step, why in self.health.retrying.items()}
        found |= dict(self.health.blocked)
        found["partitions"] = "" if self.assigned() else "not assigned now"
        found |= {"redis": redis, "kafka": kafka}
        return {what: why for what, why in found.items() if why}

    async def _services(self) -> tuple[str, str]:
        """What Redis and Kafka lack. However many want to know, they are asked once at a time, and
        what they said holds for a moment: each time takes connections of its own."""
        now = time.monotonic()
        if not self._asked or (self._asked.done() and now - self._since > FRESH_SECONDS):
            self._since = now
            self._asked = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asked)  # who goes away does not end it for the others

    async def _ask(self) -> tuple[str, str]:
        redis, kafka = await asyncio.gather(self._redis(), self._kafka())
        return redis, kafka

    async def _redis(self) -> str:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self.store.ping()
        except TimeoutError:
            return f"no answer within {PROBE_SECONDS:.0f} s"
        except (RedisError, OSError) as error:
            return f"does not answer: {error}"
        return ""

    async def _kafka(self) -> str:
        try:
            async with open_admin(self.settings, PROBE_SECONDS):
                return ""
        except (UnreachableError, SettingsError) as error:  # a file it needs may be gone
            return str(error)
