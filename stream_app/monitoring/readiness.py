"""Readiness: whether a worker can do its work now, or the reasons why not.

A worker is ready when its partitions are assigned, nothing is being retried, and Redis and Kafka
answer a probe.
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

PROBE_SECONDS = 2.0
"""Shorter than the timeouts of those who ask for readiness."""
CACHE_SECONDS = 1.0


class Readiness:
    """One per worker. assigned: whether its partitions are assigned and stay for now. A worker with
    no partitions, because there are too few, is ready: it is a standby, and answers queries through
    Redis."""

    def __init__(
        self, settings: Settings, store: StreamStore, health: Health, assigned: Callable[[], bool]
    ) -> None:
        self.settings = settings
        self.store = store
        self.health = health
        self.assigned = assigned
        self._probe: asyncio.Task[tuple[str, str]] | None = None
        self._probed_at = 0.0

    async def reasons(self) -> dict[str, str]:
        """Why the worker is not ready, by what it lacks; empty if it is ready."""
        redis, kafka = await self._services()
        reasons = {f"step {step}": f"waits: {why}" for step, why in self.health.retrying.items()}
        reasons |= self.health.blocked
        reasons["partitions"] = "" if self.assigned() else "not assigned now"
        reasons |= {"redis": redis, "kafka": kafka}
        return {what: why for what, why in reasons.items() if why}

    async def _services(self) -> tuple[str, str]:
        """What is wrong with Redis and with Kafka; '' if nothing is. All callers share one probe at
        a time, and its result for a moment, since each probe takes new connections."""
        now = time.monotonic()
        if not self._probe or (self._probe.done() and now - self._probed_at > CACHE_SECONDS):
            self._probed_at = now
            self._probe = asyncio.create_task(self._probe_services())
        return await asyncio.shield(self._probe)  # a cancelled caller does not cancel the others'

    async def _probe_services(self) -> tuple[str, str]:
        redis, kafka = await asyncio.gather(self._probe_redis(), self._probe_kafka())
        return redis, kafka

    async def _probe_redis(self) -> str:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self.store.ping()
        except TimeoutError:
            return f"no answer within {PROBE_SECONDS:.0f} s"
        except (RedisError, OSError) as error:
            return f"does not answer: {error}"
        return ""

    async def _probe_kafka(self) -> str:
        try:
            async with open_admin(self.settings, PROBE_SECONDS):
                return ""
        except (UnreachableError, SettingsError) as error:  # a key file may have been deleted
            return str(error)
