"""Connections to Redis: the client, its type, and the errors that callers may catch.

Only this package and `runtime.retry`, which classifies its errors, import redis-py.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from stream_app.errors import SettingsError, UnreachableError
from stream_app.settings.variables import variable

__all__ = ["AnyRedis", "NoPermissionError", "RedisError", "connect", "open_redis"]

AnyRedis: TypeAlias = Any
"""A `redis.asyncio.Redis`, or a pipeline of one, that replies in bytes. redis-py types a reply as
the union of all its forms: awaitable or not, bytes or str."""


def connect(url: str) -> AnyRedis:
    """A client that connects at its first command. Raises SettingsError if the URL is wrong."""
    try:
        redis = Redis.from_url(url)
        pool: Any = redis.connection_pool
        pool.make_connection()  # validates the URL's options
    except (TypeError, ValueError):
        raise SettingsError(
            f"{variable('redis')} has an option after its ? that redis-py does not take there: "
            "see `Redis.from_url`; those that begin with ssl_ go with rediss://"
        ) from None
    return redis


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[AnyRedis]:
    """A client of a Redis that answers, closed with the block. Raises SettingsError if the URL is
    wrong, and UnreachableError if Redis does not answer, now or within the block, or refuses the
    user."""
    redis = connect(url)
    try:
        await redis.ping()
        yield redis
    except (AuthenticationError, NoPermissionError) as error:
        raise UnreachableError(
            f"Redis refuses ({error}): see user and password in {variable('redis')}, and the "
            "user's rights"
        ) from error
    except RedisError as error:
        if "HELLO" in str(error):
            raise UnreachableError(
                f"Redis is older than 6.0 ({error}): upgrade it, or name another in "
                f"{variable('redis')}"
            ) from error
        raise UnreachableError(
            f"Redis does not answer ({error}): start one, or name another with --redis or "
            f"{variable('redis')}"
        ) from error
    finally:
        await redis.aclose()
