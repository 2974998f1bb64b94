"""Query leases: only one of the workers that receive a pub/sub query answers it.

The lease is renewed while the query is being answered. Then the answer takes its place in Redis,
for clients that send the query again. This module decides when and for how long; the steps in Redis
are those of `store.leases`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stream_app.runtime.retry import raise_if_cancelled
from stream_app.store.connection import RedisError
from stream_app.store.leases import LeaseStore, new_token

logger = logging.getLogger("xl3m")

LEASE_MS = 60_000
"""After this time the query of a worker that died may be sent again."""
RENEW_SECONDS = LEASE_MS / 3000
MAX_ANSWER_BYTES = 16 << 20
"""Memory in Redis for the answers of one worker; beyond it the oldest are deleted."""
KEPT_SHARE = 0.75
"""How much of that memory the answers may take after a deletion."""
KEY_OVERHEAD_BYTES = 160
"""What a key takes in Redis beside its name and value."""


class QueryLeases:
    """The leases of one worker, and the answers that it keeps in Redis: by query id when each
    expires, and its size."""

    def __init__(self, store: LeaseStore) -> None:
        self.store = store
        self.max_bytes = MAX_ANSWER_BYTES
        self.answers: dict[str, tuple[float, int]] = {}
        self.bytes = 0

    def of(self, query_id: str) -> "QueryLease":
        """The query's lease, not acquired yet."""
        return QueryLease(self, query_id)

    async def keep(self, query_id: str, size: int, seconds: float) -> None:
        """Note an answer that stays in Redis for so long, and delete old ones if there is no room
        for it."""
        self._forget(query_id)
        size += len(self.store.keys.lease(query_id)) + KEY_OVERHEAD_BYTES
        self.answers[query_id] = (time.monotonic() + seconds, size)
        self.bytes += size
        if self.bytes > self.max_bytes and (evicted := self._evict()):
            try:
                await self.store.delete(evicted)
            except (RedisError, OSError) as error:  # the answer at hand does not wait for it
                logger.warning("old answers were not deleted, and expire by themselves: %s", error)
            raise_if_cancelled()

    def _evict(self) -> list[str]:
        """Forget the answers that have expired, then the oldest ones; returns those to delete."""
        now, evicted = time.monotonic(), list[str]()
        for query_id in [each for each, (expires, _) in self.answers.items() if expires <= now]:
            self._forget(query_id)
        for query_id in list(self.answers):
            if self.bytes <= KEPT_SHARE * self.max_bytes:
                break
            self._forget(query_id)
            evicted.append(query_id)
        return evicted

    def _forget(self, query_id: str) -> None:
        _, size = self.answers.pop(query_id, (0.0, 0))
        self.bytes -= size


class QueryLease:
    """The lease of one query. held: whether this worker has it, as far as it knows; answer: another
    worker's answer, if there is one."""

    def __init__(self, leases: QueryLeases, query_id: str) -> None:
        self.leases, self.query_id = leases, query_id
        self.token = new_token()
        self.held = False
        self.answer: bytes | None = None

    async def acquire(self, lease_ms: int = LEASE_MS) -> bool:
        """True for one worker only; else `answer` is set if the query was answered."""
        store = self.leases.store
        self.held, self.answer = await store.acquire(self.query_id, self.token, lease_ms)
        return self.held

    @asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Within the block the lease is renewed."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def complete(self, answer: bytes, seconds: int) -> bool:
        """Replace the lease by the answer. False if another worker has the lease by now."""
        if not await self._put(answer, 1000 * seconds):
            return False
        await self.leases.keep(self.query_id, len(answer), seconds)
        return True

    async def release(self) -> None:
        """Free the lease, so that the query can be sent again. Safe if it is not known whether the
        lease was acquired."""
        await self._put(b"", 0)
        self.held = False

    async def _renew(self) -> None:
        while self.held:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._put(self.token, LEASE_MS)
            except (RedisError, OSError) as error:
                logger.error("a query's lease could not be renewed: %s", error)
            raise_if_cancelled()

    async def _put(self, value: bytes, ttl_ms: int) -> bool:
        store = self.leases.store
        self.held = await store.replace(self.query_id, self.token, value, ttl_ms)
        return self.held
