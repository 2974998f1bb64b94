"""Assignment: the partitions that this worker owns, with their epochs and positions.

Redis, not Kafka's committed offset, is the truth about what has been read: at each assignment the
group's offsets are set to the positions in Redis.
"""

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from stream_app.kafka.records import Event, Message
from stream_app.kafka.topic_ids import is_other_topic
from stream_app.settings.offset_reset import EARLIEST
from stream_app.store.partitions import Fence, name_of
from stream_app.store.retrying import without_retry
from stream_app.store.state import LostWritesError, PositionUpdate
from stream_app.store.store import StreamStore

logger = logging.getLogger("xl3m")


class Broker(Protocol):
    """The part of Kafka's consumer that an assignment uses; keys are Faust's TP."""

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """Seek to the group's committed offsets and return them; None where there is none."""

    async def earliest_offsets(self, *partitions: Any) -> Mapping[Any, int]:
        """The offset of the first record in each partition."""

    async def highwaters(self, *partitions: Any) -> Mapping[Any, int]:
        """The end of each partition: the offset of its next record."""

    async def topic_ids(self, names: Iterable[str]) -> Mapping[str, str]:
        """The ids of topics; a recreated topic has a new id."""

    async def offsets_at(
        self, start: Literal["latest"] | int, *partitions: Any
    ) -> Mapping[Any, int]:
        """The end of each partition, or its first offset at or after a time in milliseconds."""

    async def commit_offsets(self, offsets: Mapping[Any, int]) -> bool:
        """Set the group's committed offsets; False if the partitions are no longer ours."""


@dataclass(slots=True)
class OwnedPartition:
    """A partition this worker owns.

    incarnation: how often its topic was recreated. position: the first offset not in Redis; None if
    Redis holds none. expected: the offset of the next record, if known. missing: the number of
    missing offsets that no stream has counted yet. topic_id: the id of the topic that these offsets
    belong to; empty if unknown.
    """

    topic_partition: str
    incarnation: int
    epoch: int
    position: int | None
    expected: int | None
    missing: int = 0
    topic_id: str = ""

    @property
    def name(self) -> str:
        """The name of its offsets in Redis."""
        return name_of(self.topic_partition, self.incarnation)

    @property
    def fence(self) -> Fence:
        """The fencing token for writes to the store."""
        return self.topic_partition, self.epoch

    def has(self, offset: int) -> bool:
        """Whether Redis holds the record at an offset."""
        return offset < (self.position or 0)

    def observe(self, offset: int, first_offset: int | None = None) -> None:
        """Note a record and log the offsets missing before it. first_offset: the first offset that
        the record covers, if that is not its own."""
        first = offset if first_offset is None else first_offset
        if self.expected is not None and first > self.expected:
            self.missing += first - self.expected
            logger.error(
                "%s: offsets %d to %d are missing; the broker may have lost their records",
                self.name, self.expected, first - 1,
            )  # fmt: skip
        self.expected = max(offset + 1, self.expected or 0)

    def pop_missing(self) -> int:
        """The number of missing offsets since the last call."""
        missing, self.missing = self.missing, 0
        return missing


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
            _name(tp): tp for tp in assigned if tp.topic == self.topic or tp.topic in self.topics
        }
        run_id = await self._assigning.run_id()
        owned = await self._take_over(now, broker, check_generation, run_id) if now else {}
        lost = [name for name in self.owned if name not in now]
        self.owned, self.trusted_run_id = owned, run_id
        return list(owned), lost

    async def _take_over(
        self,
        now: Mapping[str, Any],
        broker: Broker,
        check_generation: Callable[[], None],
        run_id: str,
    ) -> dict[str, OwnedPartition]:
        """Draw epochs first: then no earlier owner moves a position, and a position after a
        partition's end belongs to a deleted topic."""
        committed = await broker.seek_to_committed()
        owned = {name: await self._draw_epoch(name, check_generation) for name in now}
        begins = await broker.earliest_offsets(*now.values())
        ends = await broker.highwaters(*now.values())
        ids = await broker.topic_ids({tp.topic for tp in now.values()})
        unread = [
            tp
            for name, tp in now.items()
            if owned[name].position is None and committed.get(tp) is None
        ]
        starts = await self._starts(unread, broker)
        for name, tp in now.items():
            check_generation()
            partition = owned[name]
            await self._resolve_position(
                partition, begins.get(tp), ends.get(tp), ids.get(tp.topic, "")
            )
            if tp in starts:
                await self._start_at(partition, starts[tp], run_id)
            await _sync_committed(tp, partition.position, committed.get(tp), broker)
        return owned

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
        return self.owned.get(_name(message))

    def name(self, message: Message) -> str:
        """The name of a message's partition."""
        owned = self.of(message)
        return owned.name if owned else _name(message)

    def owns(self, owned: OwnedPartition) -> bool:
        """Whether the partition is still owned, by the same assignment."""
        return self.owned.get(owned.topic_partition) is owned

    async def advance(self, batch: Sequence[tuple[OwnedPartition, Event]]) -> None:
        """Move the positions in Redis to the end of a batch."""
        ends = {_name(event.message): (owned, event.message.offset + 1) for owned, event in batch}
        await self.store.partitions.move(
            [
                PositionUpdate(name, owned.epoch, owned.position, end, owned.missing)
                for name, (owned, end) in ends.items()
            ],
            self.trusted_run_id,
        )
        for owned, end in ends.values():
            owned.position = end

    async def _starts(self, unread: list[Any], broker: Broker) -> Mapping[Any, int]:
        """Start offsets of partitions that were never read; none if that is the first record."""
        if not unread or self.start == EARLIEST:
            return {}
        return await broker.offsets_at(self.start, *unread)

    async def _start_at(self, owned: OwnedPartition, offset: int, run_id: str) -> None:
        """Start at an offset: everything before it counts as read."""
        logger.info("%s: begins at offset %d", owned.topic_partition, offset)
        await self._assigning.move(
            [PositionUpdate(owned.topic_partition, owned.epoch, None, offset)], run_id
        )
        owned.position = owned.expected = offset

    async def _draw_epoch(self, name: str, check: Callable[[], None]) -> OwnedPartition:
        """The partition with a new epoch and its position in Redis."""
        epoch = await self._assigning.draw_epoch(name, check)
        position, incarnation = await self._assigning.position(name)
        missing = await self._assigning.gap(name)
        topic_id = await self._assigning.topic_id(name)
        return OwnedPartition(name, incarnation, epoch, position, position, missing, topic_id)

    async def _resolve_position(
        self, owned: OwnedPartition, begin: int | None, end: int | None, topic_id: str
    ) -> None:
        """Compare the position in Redis with Kafka's offsets and topic id.

        Without a position the first record is expected. A recreated topic, or one that ends before
        the position, has other records at the offsets that were read: the partition gets a new
        incarnation, so that none of its offsets count as read.
        """
        known = owned.topic_id
        if owned.position is None:
            owned.expected = begin
        elif is_other_topic(known, topic_id) or (end is not None and end < owned.position):
            _log_recreated(owned, end, topic_id)
            await self._assigning.reset(*owned.fence, owned.incarnation + 1, topic_id or known)
            owned.incarnation += 1
            owned.position = owned.expected = owned.missing = 0
            known = topic_id or known
        if topic_id and topic_id != known:
            if known and owned.position is not None:
                _log_copied(owned)
            await self._assigning.note_topic_id(*owned.fence, topic_id)
        owned.topic_id = topic_id or known


def _comparable(position: int | None) -> int:
    return -1 if position is None else position


def _name(where: Any) -> str:
    """topic/partition of a message or a TP."""
    return f"{where.topic}/{where.partition}"


def _log_recreated(owned: OwnedPartition, end: int | None, topic_id: str) -> None:
    """Log that the partition was recreated, and how that was noticed."""
    reason = "the topic was deleted and recreated"
    if not is_other_topic(owned.topic_id, topic_id):
        reason = f"it ends at offset {end}: the topic was recreated, or the broker lost records"
    logger.error(
        "%s: %s. %s offsets were read of the old topic. The streams keep their text and continue "
        "with the first record of the new one.",
        owned.topic_partition, reason, owned.position,
    )  # fmt: skip


def _log_copied(owned: OwnedPartition) -> None:
    logger.warning(
        "%s is on another Kafka cluster than before: this worker continues at offset %s, since it "
        "may be a copy. If it is not, `xl3m rebuild --all` reads it from its first record.",
        owned.topic_partition, owned.position,
    )  # fmt: skip


async def _sync_committed(
    tp: Any, position: int | None, committed: int | None, broker: Broker
) -> None:
    """Set Kafka's committed offset to the position in Redis, before Faust seeks to it."""
    if position is None and committed:
        logger.error(
            "%s: the group has read up to offset %d, but Redis holds nothing of it: "
            "reading it again from the start.",
            _name(tp), committed,
        )  # fmt: skip
    target = position or 0
    if target == (committed or 0):
        return
    if not await broker.commit_offsets({tp: target}):
        logger.warning("%s: another rebalance came before it was taken over", _name(tp))
