"""Consumer: Faust's Kafka consumer, mended where it passes over events without a word.

Faust throws away what was fetched while its flow stood still, and seeks back to what the group has
committed. Where that is nothing, or 0, neither Faust nor aiokafka seeks. Knows offsets only.
"""

from collections.abc import Mapping

from faust.transport.drivers import aiokafka
from faust.types import TP


class Consumer(aiokafka.Consumer):
    """Reads a partition of which nothing is committed from its first record."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every partition to its committed offset; returns these, where there are any."""
        committed = await super().seek_to_committed()
        for tp, offset in committed.items():
            if not offset:
                # Before the first record it has, Kafka's `earliest` counts.
                await self.seek(tp, 0)
        return committed
