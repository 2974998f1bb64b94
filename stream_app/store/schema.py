"""Schema: how what lies in Redis is laid out has a number, so that no worker misreads another's.

The first worker notes its own; one that finds a different number does not start. Knows the
number; not the layout.
"""

from stream_app.errors import SchemaError
from stream_app.store.connection import AnyRedis
from stream_app.store.keys import SCHEMA, Keys


async def ensure_schema(redis: AnyRedis, keys: Keys) -> None:
    """Note this program's schema if none is noted yet. Raises SchemaError if another one is."""
    await redis.set(keys.schema(), SCHEMA, nx=True)
    await check_schema(redis, keys)


async def check_schema(redis: AnyRedis, keys: Keys) -> int | None:
    """The schema noted in Redis, None if there is none yet; notes nothing. Raises SchemaError if
    it is not this program's."""
    noted = await noted_schema(redis, keys)
    if noted not in (None, SCHEMA):
        raise SchemaError(_difference(noted))
    return noted


async def noted_schema(redis: AnyRedis, keys: Keys) -> int | None:
    """The schema noted in Redis, whosever it is. Raises SchemaError if it is not a number."""
    noted = await redis.get(keys.schema())  # bytes, as this client answers
    if noted is None:
        return None
    text = noted.decode(errors="replace")
    if not text.isdecimal():
        raise SchemaError(f"the key {keys.schema()} in Redis is {text[:20]!r}, not a number")
    return int(text)


def _difference(noted: int) -> str:
    """The error's text: whether to upgrade this worker or to rebuild what is in Redis."""
    mine = SCHEMA
    if noted > mine:
        return (
            f"Redis holds schema {noted}, written by a newer xl3m; this one knows {mine}: upgrade "
            "this worker, or give it a Redis of its own"
        )
    return (
        f"Redis holds schema {noted}, written by an older xl3m; this one knows {mine} and cannot "
        "read it: `xl3m rebuild --all` deletes it, and workers read Kafka again"
    )
