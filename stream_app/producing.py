"""Producing: a producer whose events are each in their topic once, or a reason why they are not.

Knows Kafka's producer; not what is sent.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream_app import access
from stream_app.refusal import unreachable
from stream_app.settings import Settings


@asynccontextmanager
async def producing(settings: Settings, linger_ms: int = 0) -> AsyncIterator[AIOKafkaProducer]:
    """Idempotent: all replicas have what is confirmed, and a try whose reply was lost is not in
    the topic twice. Waits for a broker that is away, and says so.

    Raises UnreachableError when the broker refuses.
    """
    how = access.kafka(settings)
    try:
        async with AIOKafkaProducer(**how, linger_ms=linger_ms, enable_idempotence=True) as made:
            yield made
    except KafkaError as error:
        raise unreachable(settings, error) from error
