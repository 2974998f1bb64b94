"""Claim: of the workers that hear a query through pub/sub, the one that answers it.

The claim is a lease, renewed while the answer is written; in its place stands the answer then, for
who asks again. Knows Redis and bytes; not what is asked or answered.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from stream_app.runtime.retry import raise_if_cancelled
from stream_app.store.connection import RedisError
from stream_app.store.leases import LEASED, LeaseStore

logger = logging.getLogger("xl3m")

# After that a query whose worker died may be asked again.
LEASE_MS = 60_000
RENEW_SECONDS = LEASE_MS / 3000
# Of answers kept for who asks again, in Redis, by one worker; beyond that the oldest go.
KEPT_BYTES = 16 << 20
KEPT_AFTER = 0.75  # of these, once some had to go
OVERHEAD_BYTES = 160  # of a key in Redis


class QueryLeases:
    """Those of one worker."""

    def __init__(self, store: LeaseStore) -> None:
        self.store = store
        self.kept_bytes = KEPT_BYTES
        self.kept: dict[str, tuple[float, int]] = {}
        self.bytes = 0

    def of(self, query_id: str) -> "QueryLease":
        """That of a query, not taken yet."""
        return QueryLease(self, query_id)

    async def keep(self, query_id: str, size: int, seconds: float) -> None:
        """Note an answer that stands in Redis for so long, and make room for it."""
        self._forget(query_id)
        size += len(self.store.keys.lease(query_id)) + OVERHEAD_BYTES
        self.kept[query_id] = (time.monotonic() + seconds, size)
        self.bytes += size
        if self.bytes > self.kept_bytes and (old := self._make_room()):
            await self.store.delete(old)

    def _make_room(self) -> list[str]:
        """Forget those that are gone by themselves, then the oldest; these are to be deleted."""
        now, old = time.monotonic(), list[str]()
        for name in [name for name, (until, _) in self.kept.items() if until <= now]:
            self._forget(name)
        for name in list(self.kept):
            if self.bytes <= KEPT_AFTER * self.kept_bytes:
                break
            self._forget(name)
            old.append(name)
        return old

    def _forget(self, name: str) -> None:
        _, size = self.kept.pop(name, (0.0, 0))
        self.bytes -= size


class QueryLease:
    """mine: whether it is this worker's, as far as it knows; answer: another's, if it is there."""

    def __init__(self, claims: QueryLeases, query_id: str) -> None:
        self.claims, self.query_id = claims, query_id
        self.token = b"%s by %s" % (LEASED, uuid4().hex.encode())
        self.mine = False
        self.answer: bytes | None = None

    async def take(self, lease_ms: int = LEASE_MS) -> bool:
        """True for one worker only."""
        found = await self.claims.store.acquire(self.query_id, self.token, lease_ms)
        self.mine = found == self.token
        self.answer = None if found is None or found.startswith(LEASED) else found
        return self.mine

    @asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Renewed while what is within runs, and not afterwards."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def complete(self, answer: bytes, seconds: int) -> bool:
        """Leave the answer for who asks again. False if another has claimed it meanwhile."""
        if not await self._put(answer, 1000 * seconds):
            return False
        await self.claims.keep(self.query_id, len(answer), seconds)
        return True

    async def release(self) -> None:
        """Let the query be asked again; also where it is not known if the claim was taken."""
        await self._put(b"", 0)
        self.mine = False

    async def _renew(self) -> None:
        while self.mine:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._put(self.token, LEASE_MS)
            except (RedisError, OSError) as error:
                logger.error("a claim could not be renewed: %s", error)
            raise_if_cancelled()

    async def _put(self, value: bytes, lease_ms: int) -> bool:
        store = self.claims.store
        self.mine = await store.replace(self.query_id, self.token, value, lease_ms)
        return self.mine
