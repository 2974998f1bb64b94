"""Subscription: the messages on channels of Redis, and when some may have been missed.

Pub/sub is not durable: messages that are published while a client reconnects are lost. So a
subscription yields None each time that it begins.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from redis import exceptions

from stream_app.runtime.retry import TRANSIENT_ERRORS, is_transient
from stream_app.store.connection import AnyRedis

logger = logging.getLogger("xl3m")
T = TypeVar("T")

RECONNECT_SECONDS = 30.0
"""A client tries to reconnect for this time."""
PAUSE_SECONDS = 0.5

Message = dict[str, Any]
"""redis-py's: `channel` and `data`, both bytes."""


async def messages(redis: AnyRedis, *channels: str) -> AsyncGenerator[Message | None, None]:
    """Yield None, then each message; None again whenever redis-py has reconnected. Ends with an
    error only: ConnectionError also if redis-py ends without one, as some versions do after
    silence."""
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(*channels)
        async for message in pubsub.listen():
            if message["type"] == "message":
                yield message
            elif message["type"] == "subscribe" and message["channel"].decode() == channels[-1]:
                yield None
    raise exceptions.ConnectionError("Redis ended the subscription")


async def retry_briefly(call: Callable[[], Awaitable[T]]) -> T:
    """The result of an idempotent call on a store, made again for RECONNECT_SECONDS while Redis is
    away: for the time after a reconnection, when other connections are still broken."""
    end = time.monotonic() + RECONNECT_SECONDS
    while True:
        try:
            return await call()
        except TRANSIENT_ERRORS as error:
            if not is_transient(error) or time.monotonic() > end:
                raise
            logger.debug("Redis is away, trying again: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)


async def follow(redis: AnyRedis, *channels: str) -> AsyncGenerator[Message | None, None]:
    """As `messages`, but reconnects after a restart of Redis, or if Redis drops a client that reads
    too slowly. Raises the error if that fails for RECONNECT_SECONDS, or if Redis refuses the
    user."""
    broken_at: float | None = None
    while True:
        try:
            async with aclosing(messages(redis, *channels)) as subscription:
                async for message in subscription:
                    broken_at = None
                    yield message
        except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
            broken_at = broken_at or time.monotonic()
            refused = isinstance(error, exceptions.AuthenticationError)
            if refused or time.monotonic() - broken_at > RECONNECT_SECONDS:
                raise
            logger.debug("the subscription ended, subscribing again: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)
