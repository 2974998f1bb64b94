"""Readiness: whether a worker can do its work now, or the reasons why not.

It is when its partitions were assigned, nothing waits for Redis, and Redis and Kafka answer when
they are asked here and now. Knows whom to ask; not who wants to know.
"""

import asyncio
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from stream_app.errors import SettingsError, UnreachableError
from stream_app.patience import Health
from stream_app.settings import Settings
from stream_app.topics import administering

# Shorter than those who probe wait for an answer.
ASKED_SECONDS = 2.0


class Readiness:
    """One per worker. assigned: whether its partitions are, and stay for now. A worker that got
    none because there are too few is ready: it takes over, and answers through Redis."""

    def __init__(
        self, settings: Settings, redis: Redis, health: Health, assigned: Callable[[], bool]
    ) -> None:
        self.settings = settings
        self.redis = redis
        self.health = health
        self.assigned = assigned

    async def reasons(self) -> dict[str, str]:
        """Why it is not ready, by what is lacking; empty if it is."""
        redis, kafka = await asyncio.gather(self._redis(), self._kafka())
        found = {f"step {step}": f"waits: {why}" for step, why in self.health.waiting.items()}
        found |= dict(self.health.held)
        found["partitions"] = "" if self.assigned() else "not assigned now"
        found |= {"redis": redis, "kafka": kafka}
        return {what: why for what, why in found.items() if why}

    async def _redis(self) -> str:
        try:
            async with asyncio.timeout(ASKED_SECONDS):
                await self.redis.ping()
        except TimeoutError:
            return f"no answer within {ASKED_SECONDS:.0f} s"
        except (RedisError, OSError) as error:
            return f"does not answer: {error}"
        return ""

    async def _kafka(self) -> str:
        try:
            async with administering(self.settings, ASKED_SECONDS):
                return ""
        except (UnreachableError, SettingsError) as error:  # a file it needs may be gone
            return str(error)
