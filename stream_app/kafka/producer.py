"""Producing: a producer whose events are each in their topic once, or a reason why they are not.

Knows Kafka's producer; not what is sent.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_app.kafka import auth
from stream_app.kafka.connection import unreachable
from stream_app.settings import Settings

# So long it may take to say goodbye to a broker that may be away, when nothing waits for it.
_LEAVE_SECONDS = 3.0


@asynccontextmanager
async def open_producer(
    settings: Settings, linger_ms: int = 0, **more: Any
) -> AsyncIterator[AIOKafkaProducer]:
    """Idempotent: all replicas have what is confirmed, and a try whose reply was lost is not in
    the topic twice. Waits for a broker that is away, and says so.

    more: options of aiokafka's producer. Raises UnreachableError when the broker refuses.
    """
    options = {**auth.kafka(settings), "linger_ms": linger_ms, **more}
    try:
        made = AIOKafkaProducer(**options, enable_idempotence=True)
        try:
            await made.start()
            made._message_accumulator._batch_ttl = float("inf")  # until a partition has a leader
            yield made
        except BaseException:
            await _leave(made)
            raise
        await made.stop()
    except KafkaError as error:
        raise unreachable(settings, error) from error


async def _leave(producer: AIOKafkaProducer) -> None:
    """End it without waiting for what is not confirmed; it is not sent after this."""
    try:
        async with asyncio.timeout(_LEAVE_SECONDS):
            await producer.stop()
    except TimeoutError:
        await producer._sender.close()
        await producer.client.close()
