"""Claim: of the workers that hear a query through pub/sub, the one that answers it.

The claim is a lease, renewed while the answer is written; in its place stands the answer then, for
who asks again. Knows Redis and bytes; not what is asked or answered.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from stream_app.runtime.retry import raise_if_cancelled
from stream_app.store.keys import Keys
from stream_app.store.scripts import Script

logger = logging.getLogger("xl3m")

# After that a query whose worker died may be asked again.
LEASE_MS = 60_000
RENEW_SECONDS = LEASE_MS / 3000
LEASED = b"claimed"
# Of answers kept for who asks again, in Redis, by one worker; beyond that the oldest go.
KEPT_BYTES = 16 << 20
KEPT_AFTER = 0.75  # of these, once some had to go
OVERHEAD_BYTES = 160  # of a key in Redis


class QueryLeases:
    """Those of one worker."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis: Any = redis
        self.keys = keys
        self.script = Script(redis, "put_lease.lua")
        self.kept_bytes = KEPT_BYTES
        self.kept: dict[str, tuple[float, int]] = {}
        self.bytes = 0

    def of(self, query_id: str) -> "QueryLease":
        """That of a query, not taken yet."""
        return QueryLease(self, self.keys.lease(query_id))

    async def keep(self, name: str, size: int, seconds: float) -> None:
        """Note an answer that stands in Redis for so long, and make room for it."""
        self._forget(name)
        size += len(name) + OVERHEAD_BYTES
        self.kept[name] = (time.monotonic() + seconds, size)
        self.bytes += size
        if self.bytes > self.kept_bytes and (old := self._make_room()):
            await self.redis.unlink(*old)

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

    def __init__(self, claims: QueryLeases, name: str) -> None:
        self.claims, self.name = claims, name
        self.token = b"%s by %s" % (LEASED, uuid4().hex.encode())
        self.mine = False
        self.answer: bytes | None = None

    async def take(self, lease_ms: int = LEASE_MS) -> bool:
        """True for one worker only."""
        redis = self.claims.redis
        self.mine = bool(await redis.set(self.name, self.token, nx=True, px=lease_ms))
        if not self.mine:
            there = await redis.get(self.name)
            self.mine = there == self.token  # a client may try again, if its first reply was lost
            self.answer = None if there is None or there.startswith(LEASED) else there
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
        await self.claims.keep(self.name, len(answer), seconds)
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
        arguments = [self.token, value, lease_ms]
        self.mine = await self.claims.script([self.name], arguments) == 1
        return self.mine
