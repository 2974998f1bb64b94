"""open_producer: an idempotent Kafka producer, closed at the end of a `with` block."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_app.kafka import auth
from stream_app.kafka.connection import unreachable
from stream_app.settings import Settings

# Limit for closing after an error, when the broker may be down.
_CLOSE_SECONDS = 3.0


@asynccontextmanager
async def open_producer(
    settings: Settings, linger_ms: int = 0, **more: Any
) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer. Acknowledged events are on all replicas, and a retry does not write an
    event twice. While the broker is down it waits, with log lines.

    more: options of aiokafka's producer. Raises UnreachableError if the broker refuses.
    """
    options = {**auth.kafka(settings), "linger_ms": linger_ms, **more}
    try:
        producer = AIOKafkaProducer(**options, enable_idempotence=True)
        try:
            await producer.start()
            # Batches do not expire while a partition has no leader.
            producer._message_accumulator._batch_ttl = float("inf")
            yield producer
        except BaseException:
            await _close(producer)
            raise
        await producer.stop()
    except KafkaError as error:
        raise unreachable(settings, error) from error


async def _close(producer: AIOKafkaProducer) -> None:
    """Close it without waiting for acknowledgements; nothing is sent afterwards."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await producer.stop()
    except TimeoutError:
        await producer._sender.close()
        await producer.client.close()
