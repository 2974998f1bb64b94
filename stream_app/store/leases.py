"""LeaseStore: the lease with which one of the workers that receive a pub/sub query answers it.

A query's key holds the token of the worker that has the lease, and later the answer, for clients
that ask again. The caller decides how long leases and answers stay: see `queries.lease`.
"""

from collections.abc import Sequence

from stream_app.runtime.retry import Health
from stream_app.store.connection import AnyRedis
from stream_app.store.keys import Keys
from stream_app.store.retrying import retried
from stream_app.store.scripts import Script

LEASED = b"claimed"
"""What a lease's token begins with, and no answer."""


class LeaseStore:
    """The leases of all queries. health: see `retrying`."""

    def __init__(self, redis: AnyRedis, keys: Keys, health: Health | None = None) -> None:
        self.redis = redis
        self.keys = keys
        self.health = health
        self._put_lease = Script(redis, "put_lease.lua")

    async def acquire(self, query_id: str, token: bytes, lease_ms: int) -> bytes | None:
        """Write the token if the key is free. Returns the key's value then: the token, another
        worker's token, or an answer; None if that expired meanwhile. Not retried: if Redis is away,
        the client asks again."""
        name = self.keys.lease(query_id)
        if await self.redis.set(name, token, nx=True, px=lease_ms):
            return token
        value: bytes | None = await self.redis.get(name)
        return value

    @retried
    async def replace(self, query_id: str, token: bytes, value: bytes, lease_ms: int) -> bool:
        """Replace the token by the value (empty: delete it), or renew it; False if the key holds
        another worker's token or answer."""
        reply = await self._put_lease(
            [self.keys.lease(query_id)], token=token, value=value, ttl_ms=lease_ms
        )
        return bool(reply["result"] == "put")

    async def delete(self, query_ids: Sequence[str]) -> None:
        """Delete the leases or answers of these queries. Raises at once if Redis is away: they expire
        by themselves."""
        await self.redis.unlink(*map(self.keys.lease, query_ids))

    async def are_taken(self, query_ids: Sequence[str]) -> list[bool]:
        """Whether each query is leased or answered, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for query_id in query_ids:
                pipe.exists(self.keys.lease(query_id))
            return [bool(exists) for exists in await pipe.execute()]

    async def may_repeat(self, query_id: str, interval_ms: int) -> bool:
        """Whether this worker may repeat the query's answer: True once within the interval, for one
        worker."""
        name = self.keys.repeated(query_id)
        return bool(await self.redis.set(name, LEASED, nx=True, px=interval_ms))
