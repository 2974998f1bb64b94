"""Subscription: the messages on channels of Redis, and a sign that some may have been missed.

Pub/sub stores nothing: messages published during a reconnect are lost. So a listener gets None each
time a subscription begins.
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
    """None when the subscription begins, and after each reconnect; then each message. Never ends
    without an error: where redis-py ends the iteration, as some versions do after a long silence,
    it raises ConnectionError."""
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(*channels)
        async for message in pubsub.listen():
            if message["type"] == "message":
                yield message
            elif message["type"] == "subscribe" and message["channel"].decode() == channels[-1]:
                yield None
    raise exceptions.ConnectionError("Redis ended the subscription")


async def follow(redis: AnyRedis, *channels: str) -> AsyncGenerator[Message | None, None]:
    """`messages` across lost connections: Redis was restarted, or dropped a client that reads too
    slowly. Raises the error if reconnecting fails for RECONNECT_SECONDS."""
    broken: float | None = None
    while True:
        try:
            async with aclosing(messages(redis, *channels)) as heard:
                async for message in heard:
                    broken = None
                    yield message
        except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
            broken = broken or time.monotonic()
            refused = isinstance(error, exceptions.AuthenticationError)
            if refused or time.monotonic() - broken > RECONNECT_SECONDS:
                raise
            logger.debug("listening again: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)
