"""Takeover: gives each assigned partition a new epoch, and compares Redis' position with Kafka.

The position of a recreated topic is reset. The group's committed offset is set to the position.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol

from stream_app.ingest.owned_partition import OwnedPartition, partition_name
from stream_app.kafka.topic_ids import is_other_topic
from stream_app.settings.offset_reset import EARLIEST
from stream_app.store.partitions import PartitionStore
from stream_app.store.state import PositionUpdate

logger = logging.getLogger("xl3m")


class Broker(Protocol):
    """What an assignment needs of Kafka's consumer; keys are Faust's TP."""

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


class Takeover:
    """One attempt to take over partitions. It is repeated as a whole if it fails, so `store` raises
    errors at once.

    start: where partitions begin that the group has never read. check_generation: raises if the
    partitions were revoked meanwhile, so that their next owner is not fenced.
    """

    def __init__(
        self,
        store: PartitionStore,
        broker: Broker,
        start: Literal["earliest", "latest"] | int,
        check_generation: Callable[[], None],
    ) -> None:
        self.store = store
        self.broker = broker
        self.start = start
        self.check_generation = check_generation

    async def run(self, assigned: Mapping[str, Any], run_id: str) -> dict[str, OwnedPartition]:
        """Take over the assigned partitions, TP by name. run_id: of the Redis process to write to.

        Epochs are drawn first: then no earlier owner moves a position, and a position after a
        partition's end belongs to a deleted topic.
        """
        committed = await self.broker.seek_to_committed()
        owned = {name: await self._draw_epoch(name) for name in assigned}
        begins = await self.broker.earliest_offsets(*assigned.values())
        ends = await self.broker.highwaters(*assigned.values())
        ids = await self.broker.topic_ids({tp.topic for tp in assigned.values()})
        unread = [
            tp
            for name, tp in assigned.items()
            if owned[name].position is None and committed.get(tp) is None
        ]
        starts = await self._starts(unread)
        for name, tp in assigned.items():
            self.check_generation()
            partition = owned[name]
            await self._resolve_position(
                partition, begins.get(tp), ends.get(tp), ids.get(tp.topic, "")
            )
            if tp in starts:
                await self._start_at(partition, starts[tp], run_id)
            await self._sync_committed(tp, partition.position, committed.get(tp))
        return owned

    async def _starts(self, unread: list[Any]) -> Mapping[Any, int]:
        """Start offsets of partitions that were never read, unless it is the first record."""
        if not unread or self.start == EARLIEST:
            return {}
        return await self.broker.offsets_at(self.start, *unread)

    async def _start_at(self, owned: OwnedPartition, offset: int, run_id: str) -> None:
        """Count everything before an offset as read."""
        logger.info("%s: begins at offset %d", owned.topic_partition, offset)
        await self.store.move(
            [PositionUpdate(owned.topic_partition, owned.epoch, None, offset)], run_id
        )
        owned.position = owned.expected = offset

    async def _draw_epoch(self, name: str) -> OwnedPartition:
        """The partition with a new epoch and its position in Redis."""
        epoch = await self.store.draw_epoch(name, self.check_generation)
        position, incarnation = await self.store.position(name)
        missing = await self.store.gap(name)
        topic_id = await self.store.topic_id(name)
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
            await self.store.reset(*owned.fence, owned.incarnation + 1, topic_id or known)
            owned.incarnation += 1
            owned.position = owned.expected = owned.missing = 0
            known = topic_id or known
        if topic_id and topic_id != known:
            if known and owned.position is not None:
                _log_copied(owned)
            await self.store.note_topic_id(*owned.fence, topic_id)
        owned.topic_id = topic_id or known

    async def _sync_committed(self, tp: Any, position: int | None, committed: int | None) -> None:
        """Set Kafka's committed offset to the position in Redis, before Faust seeks to it."""
        if position is None and committed:
            logger.error(
                "%s: the group has read up to offset %d, but Redis holds nothing of it: "
                "reading it again from the start.",
                partition_name(tp), committed,
            )  # fmt: skip
        target = position or 0
        if target == (committed or 0):
            return
        if not await self.broker.commit_offsets({tp: target}):
            logger.warning(
                "%s: another rebalance came before it was taken over", partition_name(tp)
            )


def _log_recreated(owned: OwnedPartition, end: int | None, topic_id: str) -> None:
    """Log why the offsets that were read are not those of the partition now."""
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
        "may be a copy. If it is no copy, `xl3m rebuild --all` reads it from its first record.",
        owned.topic_partition, owned.position,
    )  # fmt: skip
