"""Schema: the number of the layout of all keys, so that no worker misreads another version's data.

The first worker notes its number in Redis; a worker that finds a different one does not start.
"""

from collections.abc import AsyncIterator

from stream_app.errors import SchemaError
from stream_app.store.connection import AnyRedis
from stream_app.store.keys import SCHEMA, Keys

BATCH_SIZE = 1000
"""Keys that are deleted by one command."""


async def ensure_schema(redis: AnyRedis, keys: Keys) -> None:
    """Note this program's schema if none is noted yet. Raises SchemaError if another one is."""
    await redis.set(keys.schema(), SCHEMA, nx=True)
    await check_schema(redis, keys)


async def check_schema(redis: AnyRedis, keys: Keys) -> int | None:
    """The schema noted in Redis; None if there is none yet. Notes nothing. Raises SchemaError if
    it is not this program's."""
    noted = await noted_schema(redis, keys)
    if noted not in (None, SCHEMA):
        raise SchemaError(_difference(noted))
    return noted


async def noted_schema(redis: AnyRedis, keys: Keys) -> int | None:
    """The schema noted in Redis, which may be another version's. Raises SchemaError if it is not a
    number."""
    noted = await redis.get(keys.schema())
    if noted is None:
        return None
    text = noted.decode(errors="replace")
    if not text.isdecimal():
        raise SchemaError(f"the key {keys.schema()} in Redis is {text[:20]!r}, not a number")
    return int(text)


async def delete_old_schema(redis: AnyRedis, keys: Keys) -> int:
    """Delete all keys of an older schema under this prefix, questions included; returns their
    number. Raises SchemaError if the schema is a newer one."""
    noted = await noted_schema(redis, keys)
    if noted is None or noted >= SCHEMA:
        await check_schema(redis, keys)
        return 0
    count = 0
    async for names in _batches(redis.scan_iter(f"{keys.of_schema(noted)}:*", BATCH_SIZE)):
        count += await redis.unlink(*names)
    await redis.delete(keys.schema())  # last: if interrupted, the next call goes on
    await ensure_schema(redis, keys)
    return count


async def _batches(names: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    batch = list[bytes]()
    async for name in names:
        batch.append(name)
        if len(batch) == BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


def _difference(noted: int) -> str:
    """How the schemas differ, and what to do about it."""
    if noted > SCHEMA:
        return (
            f"Redis holds schema {noted}, written by a newer xl3m; this one knows {SCHEMA}: "
            "upgrade this worker, or give it a Redis of its own"
        )
    return (
        f"Redis holds schema {noted}, written by an older xl3m; this one knows {SCHEMA} and cannot "
        "read it: `xl3m rebuild --all` deletes it, and workers read Kafka again"
    )
