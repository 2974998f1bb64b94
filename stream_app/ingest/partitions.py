"""Assignment: the partitions that this worker owns, with their epochs and positions.

Redis, not Kafka's committed offset, is the truth about what has been read: at each assignment the
group's offsets are set to the positions in Redis.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Literal

from stream_app.ingest.owned_partition import OwnedPartition, partition_name
from stream_app.ingest.takeover import Broker, Takeover
from stream_app.kafka.records import Event, Message
from stream_app.settings.offset_reset import EARLIEST
from stream_app.store.retrying import without_retry
from stream_app.store.state import LostWritesError, PositionUpdate
from stream_app.store.store import StreamStore


class Assignment:
    """The partitions of a topic, or of several, that this worker owns.

    start: where partitions begin that the group has never read. trusted_run_id: the Redis process
    that is known to hold all writes of this worker; each topic's writer checks it separately.
    """

    def __init__(
        self,
        store: StreamStore,
        topic: str,
        topics: Container[str] = (),
        start: Literal["earliest", "latest"] | int = EARLIEST,
    ) -> None:
        self.store = store
        # An assignment is retried as a whole, and not at all once the partitions are revoked.
        self._assigning = without_retry(store.partitions)
        self.topic = topic
        self.topics = topics
        self.start = start
        self.owned: dict[str, OwnedPartition] = {}
        self.trusted_run_id = ""

    async def assign(
        self,
        assigned: Iterable[Any],
        broker: Broker,
        check_generation: Callable[[], None] = lambda: None,
    ) -> tuple[list[str], list[str]]:
        """Take over the assigned partitions; returns topic/partition of all owned and all lost.

        Partitions that stay get a new epoch as well: another worker may have owned them in between.
        `owned` changes at the end only, so a failed call can be repeated. check_generation: raises
        if the partitions were revoked meanwhile, so that their next owner is not fenced.
        """
        now = {
            partition_name(tp): tp
            for tp in assigned
            if tp.topic == self.topic or tp.topic in self.topics
        }
        run_id = await self._assigning.run_id()
        takeover = Takeover(self._assigning, broker, self.start, check_generation)
        owned = await takeover.run(now, run_id) if now else {}
        lost = [name for name in self.owned if name not in now]
        self.owned, self.trusted_run_id = owned, run_id
        return list(owned), lost

    async def check_positions(self) -> None:
        """Raise LostWritesError if Redis holds less than this worker wrote. Positions are written
        last: if they are there, everything is."""
        written = {name: owned.position for name, owned in self.owned.items()}
        positions = await self.store.partitions.positions([*written])
        for (name, ours), (position, _) in zip(written.items(), positions, strict=True):
            if _comparable(position) < _comparable(ours):
                raise LostWritesError(
                    f"{name}: Redis holds it up to {position}, but this worker left it at "
                    f"{ours}: it lost writes, perhaps in a restart, or `xl3m rebuild` set it back. "
                    "This worker ends; the next one reads again what is missing."
                )

    async def trust(self) -> None:
        """Write to a restarted Redis again, if it holds everything that this worker wrote."""
        run_id = await self.store.partitions.run_id()
        await self.check_positions()
        self.trusted_run_id = run_id

    def of(self, message: Message) -> OwnedPartition | None:
        """The partition of a message; None if this worker does not own it, or no longer."""
        return self.owned.get(partition_name(message))

    def name(self, message: Message) -> str:
        """The name of a message's partition."""
        owned = self.of(message)
        return owned.name if owned else partition_name(message)

    def owns(self, owned: OwnedPartition) -> bool:
        """Whether the partition is still owned, by the same assignment."""
        return self.owned.get(owned.topic_partition) is owned

    async def advance(self, batch: Sequence[tuple[OwnedPartition, Event]]) -> None:
        """Move the positions in Redis to the end of a batch."""
        ends = {
            partition_name(event.message): (owned, event.message.offset + 1)
            for owned, event in batch
        }
        await self.store.partitions.move(
            [
                PositionUpdate(name, owned.epoch, owned.position, end, owned.missing)
                for name, (owned, end) in ends.items()
            ],
            self.trusted_run_id,
        )
        for owned, end in ends.values():
            owned.position = end


def _comparable(position: int | None) -> int:
    return -1 if position is None else position
