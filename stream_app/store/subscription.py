"""Subscription: what is published on channels of Redis, and when some of it may have been missed.

Pub/sub keeps nothing: what is published while a connection is made anew is lost. So whoever listens
is told each time that listening begins. Knows Redis; not what the messages say.
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
"""For so long a client tries to listen again."""
PAUSE_SECONDS = 0.5

Message = dict[str, Any]
"""redis-py's: `channel` and `data`, both bytes."""


async def messages(redis: AnyRedis, *channels: str) -> AsyncGenerator[Message | None, None]:
    """Each message; before them None, and again whenever the connection had to be made anew. Ends
    by an error alone: ConnectionError also where redis-py ends it without one, as some do after
    silence."""
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(*channels)
        async for message in pubsub.listen():
            if message["type"] == "message":
                yield message
            elif message["type"] == "subscribe" and message["channel"].decode() == channels[-1]:
                yield None
    raise exceptions.ConnectionError("Redis ended the subscription")


async def follow(redis: AnyRedis, *channels: str) -> AsyncGenerator[Message | None, None]:
    """The same through breaks of the connection: a Redis that was started again, one that drops who
    reads too slowly. Raises when it cannot be listened to again for a while."""
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
