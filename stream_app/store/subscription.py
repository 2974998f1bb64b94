"""Subscription: messages on channels of Redis, and a signal whenever some may have been missed.

Pub/sub keeps no messages: what is published during a reconnect is lost. So a subscriber gets None
each time that a subscription begins.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from redis import exceptions

from stream_app.store.connection import AnyRedis

logger = logging.getLogger("xl3m")

RECONNECT_SECONDS = 30.0
"""How long a client tries to reconnect."""
PAUSE_SECONDS = 0.5

Message = dict[str, Any]
"""redis-py's: `channel` and `data`, both bytes."""


async def messages(redis: AnyRedis, *channels: str) -> AsyncGenerator[Message | None, None]:
    """None, then each message; None again after every reconnect, since messages may be missing.

    Only ends by an error: raises ConnectionError also if redis-py ends the iteration silently, as
    some versions do after a time without messages."""
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(*channels)
        async for message in pubsub.listen():
            if message["type"] == "message":
                yield message
            elif message["type"] == "subscribe" and message["channel"].decode() == channels[-1]:
                yield None
    raise exceptions.ConnectionError("Redis ended the subscription")


async def follow(redis: AnyRedis, *channels: str) -> AsyncGenerator[Message | None, None]:
    """Like `messages`, but reconnects, such as after a restart of Redis, or if Redis dropped a slow
    client. Raises the connection's error after RECONNECT_SECONDS, and AuthenticationError at
    once."""
    broken: float | None = None
    while True:
        try:
            async with aclosing(messages(redis, *channels)) as received:
                async for message in received:
                    broken = None
                    yield message
        except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
            broken = broken or time.monotonic()
            refused = isinstance(error, exceptions.AuthenticationError)
            if refused or time.monotonic() - broken > RECONNECT_SECONDS:
                raise
            logger.debug("listening again: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)
