"""LeaseStore: the lease of each query that workers receive through pub/sub.

A query's key holds the token of the worker that answers it, and later the answer, for clients that
send the query again. Each method is one step in Redis. When leases are renewed, and how long and
how many answers are kept, is decided by `queries.lease`.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import uuid4

from stream_app.runtime.retry import Health
from stream_app.store.connection import AnyRedis
from stream_app.store.keys import Keys
from stream_app.store.retrying import retried
from stream_app.store.scripts import Script

LEASED = b"claimed"
"""The beginning of every token, and of no answer."""


class Acquisition(NamedTuple):
    """held: whether the caller has the lease; answer: the query's answer, if there is one."""

    held: bool
    answer: bytes | None


def new_token() -> bytes:
    """A token that no other lease has."""
    return b"%s by %s" % (LEASED, uuid4().hex.encode())


class LeaseStore:
    """The leases of all queries. health: see `retrying`."""

    def __init__(self, redis: AnyRedis, keys: Keys, health: Health | None = None) -> None:
        self.redis = redis
        self.keys = keys
        self.health = health
        self._put_lease = Script(redis, "put_lease.lua")

    async def acquire(self, query_id: str, token: bytes, lease_ms: int) -> Acquisition:
        """Acquire the query's lease if no worker has it and there is no answer. Errors are raised
        at once: the client sends the query again."""
        name = self.keys.lease(query_id)
        if await self.redis.set(name, token, nx=True, px=lease_ms):
            return Acquisition(True, None)
        value: bytes | None = await self.redis.get(name)
        if value is None or value.startswith(LEASED):
            return Acquisition(value == token, None)  # an earlier try's reply may have been lost
        return Acquisition(False, value)

    @retried
    async def replace(self, query_id: str, token: bytes, value: bytes, lease_ms: int) -> bool:
        """Replace the token by a value: the answer, the token itself (which renews the lease), or
        nothing (b"", which deletes the key). False if the key holds another worker's token or
        answer."""
        reply = await self._put_lease(
            [self.keys.lease(query_id)], token=token, value=value, ttl_ms=lease_ms
        )
        return bool(reply["result"] == "put")

    async def delete(self, query_ids: Sequence[str]) -> None:
        """Delete the leases or answers of these queries."""
        await self.redis.unlink(*map(self.keys.lease, query_ids))

    async def are_taken(self, query_ids: Sequence[str]) -> list[bool]:
        """Whether each query is leased or answered, in one round trip."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for query_id in query_ids:
                pipe.exists(self.keys.lease(query_id))
            return [bool(exists) for exists in await pipe.execute()]

    async def may_repeat(self, query_id: str, interval_ms: int) -> bool:
        """Whether the caller may publish the query's answer again: True for one worker in each
        interval."""
        name = self.keys.repeated(query_id)
        return bool(await self.redis.set(name, LEASED, nx=True, px=interval_ms))
