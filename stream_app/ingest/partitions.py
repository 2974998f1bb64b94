"""Partitions: which ones this worker owns, their epochs, and where each of them stands.

Redis, not Kafka's committed offset, says what has been read: at assignment the group is
set to continue where Redis stands. Knows topic/partition names and offsets, no events' text.
"""

import logging
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from stream_app.kafka.topic_ids import is_other_topic
from stream_app.settings.offset_reset import EARLIEST
from stream_app.store.partitions import Fence, name_of
from stream_app.store.retrying import without_retry
from stream_app.store.state import LostWritesError, PositionUpdate
from stream_app.store.store import StreamStore

logger = logging.getLogger("xl3m")


class Broker(Protocol):
    """What is asked of Kafka about partitions at assignment; keys are Faust's TP."""

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """The group's committed offsets, from which is read on."""

    async def earliest_offsets(self, *partitions: Any) -> Mapping[Any, int]:
        """The offset of the first record that each partition still has."""

    async def highwaters(self, *partitions: Any) -> Mapping[Any, int]:
        """The offset the next record of each partition will get."""

    async def topic_ids(self, names: Iterable[str]) -> Mapping[str, str]:
        """The ids of topics, by which one that was created again differs."""

    async def offsets_at(
        self, start: Literal["latest"] | int, *partitions: Any
    ) -> Mapping[Any, int]:
        """The end of each partition, or its first offset since a time in milliseconds."""

    async def commit_offsets(self, offsets: Mapping[Any, int]) -> bool:
        """Set the group's committed offsets; False if they are no longer ours to set."""


@dataclass(slots=True)
class OwnedPartition:
    """A partition this worker owns. plain: its topic/partition; made: how often the topic was made
    again; position: the first offset not in Redis, if it holds any; expected: the offset that
    should come next, if known; gap: offsets that never came and that no stream has counted yet;
    topic_id: of the topic whose offsets these are, if known."""

    topic_partition: str
    incarnation: int
    epoch: int
    position: int | None
    expected: int | None
    missing: int = 0
    topic_id: str = ""

    @property
    def name(self) -> str:
        """Under which its offsets are kept."""
        return name_of(self.topic_partition, self.incarnation)

    @property
    def fence(self) -> Fence:
        """What the store asks of who changes something for it."""
        return self.topic_partition, self.epoch

    def has(self, offset: int) -> bool:
        """Whether Redis holds what came at the offset."""
        return offset < (self.position or 0)

    def observe(self, offset: int, first_offset: int | None = None) -> None:
        """Note an offset; those left out before it, or before the first that it accounts for, are
        a gap, never passed over in silence."""
        first = offset if first_offset is None else first_offset
        if self.expected is not None and first > self.expected:
            self.missing += first - self.expected
            logger.error(
                "%s: offsets %d to %d never came; the broker may have dropped them",
                self.name, self.expected, first - 1,
            )  # fmt: skip
        self.expected = max(offset + 1, self.expected or 0)

    def pop_missing(self) -> int:
        """Offsets missing since last asked."""
        gap, self.missing = self.missing, 0
        return gap


class Assignment:
    """The partitions of a topic, or of several, that this worker owns. trusted: the Redis that it
    has seen to hold all that was left there; each topic's writer makes sure for itself. start:
    where one begins that nobody has read of yet."""

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
        self, assigned: Iterable[Any], broker: Broker, still: Callable[[], None] = lambda: None
    ) -> tuple[list[str], list[str]]:
        """Take over the partitions now assigned; returns topic/partition of all owned and lost.

        Those that stay are taken over anew: who knows who held them in between. Nothing is
        won or lost before all of it is done, so a failure can be tried again. still: raises if
        the partitions were called back meanwhile; another's are not to be fenced.
        """
        now = {
            _plain(tp): tp for tp in assigned if tp.topic == self.topic or tp.topic in self.topics
        }
        taken = {}
        run_id = await self._assigning.run_id()
        if now:
            committed = await broker.seek_to_committed()
            for plain in now:
                taken[plain] = await self._draw(plain, still)
            # No earlier owner moves a position now: one behind the end is of a topic that is gone.
            begins = await broker.earliest_offsets(*now.values())
            ends = await broker.highwaters(*now.values())
            ids = await broker.topic_ids({tp.topic for tp in now.values()})
            never = [tp for plain, tp in now.items() if taken[plain].position is None]
            never = [tp for tp in never if committed.get(tp) is None]
            starts = await self._starts(never, broker)
            for plain, tp in now.items():
                still()
                await self._resolve_position(
                    taken[plain], begins.get(tp), ends.get(tp), ids.get(tp.topic, "")
                )
                if tp in starts:
                    await self._begin_at(taken[plain], starts[tp], run_id)
                await _sync_committed(tp, taken[plain].position, committed.get(tp), broker)
        lost = [plain for plain in self.owned if plain not in now]
        self.owned, self.trusted_run_id = taken, run_id
        return list(taken), lost

    async def check_generation(self) -> None:
        """See that Redis has all that this worker left there. Raises LostWritesError: positions
        are written last, so if these are there, all is."""
        left = {plain: owned.position for plain, owned in self.owned.items()}
        positions = await self.store.partitions.positions([*left])
        for (plain, ours), (position, _) in zip(left.items(), positions, strict=True):
            if _reached(position) < _reached(ours):
                raise LostWritesError(
                    f"{plain}: Redis holds it up to {position}, but this worker left it at "
                    f"{ours}: it lost writes, perhaps in a restart, or `xl3m rebuild` set it back. "
                    "This worker ends; the next one reads again what is missing."
                )

    async def trust(self) -> None:
        """Write again to a Redis that was started again, if it has all that was left there."""
        run_id = await self.store.partitions.run_id()
        await self.check_generation()
        self.trusted_run_id = run_id

    def of(self, message: Any) -> OwnedPartition | None:
        """The partition a message came from, None if this worker does not own it (any more)."""
        return self.owned.get(_plain(message))

    def name(self, message: Any) -> str:
        """The name of the partition a message came from."""
        owned = self.of(message)
        return owned.name if owned else _plain(message)

    def owns(self, owned: OwnedPartition) -> bool:
        """Whether the partition is still this worker's, by the same assignment."""
        return self.owned.get(owned.topic_partition) is owned

    async def advance(self, batch: list[tuple[OwnedPartition, Any]]) -> None:
        """Note in Redis that everything up to the end of the batch is there."""
        ends = {_plain(event.message): (owned, event.message.offset + 1) for owned, event in batch}
        await self.store.partitions.move(
            [
                PositionUpdate(plain, owned.epoch, owned.position, end, owned.missing)
                for plain, (owned, end) in ends.items()
            ],
            self.trusted_run_id,
        )
        for owned, end in ends.values():
            owned.position = end

    async def _starts(self, never: list[Any], broker: Broker) -> Mapping[Any, int]:
        """Where those begin that were never read, unless with their first record."""
        if not never or self.start == EARLIEST:
            return {}
        return await broker.offsets_at(self.start, *never)

    async def _begin_at(self, owned: OwnedPartition, offset: int, run_id: str) -> None:
        """All before the offset counts as read from now on."""
        logger.info("%s: begins at offset %d", owned.topic_partition, offset)
        await self._assigning.move(
            [PositionUpdate(owned.topic_partition, owned.epoch, None, offset)], run_id
        )
        owned.position = owned.expected = offset

    async def _draw(self, plain: str, still: Callable[[], None]) -> OwnedPartition:
        """The partition with a new epoch, where Redis stands."""
        epoch = await self._assigning.draw_epoch(plain, still)
        offset, made = await self._assigning.position(plain)
        gap, topic_id = await self._assigning.gap(plain), await self._assigning.topic_id(plain)
        return OwnedPartition(plain, made, epoch, offset, offset, gap, topic_id)

    async def _resolve_position(
        self, owned: OwnedPartition, begin: int | None, end: int | None, topic_id: str
    ) -> None:
        """What is expected of it next, if Redis holds nothing: its first record. A topic that was
        created again, or ends before where Redis stands, has other records at the offsets that
        were read: its partition gets a new name, so that no offset of it looks known."""
        offset, known = owned.position, owned.topic_id
        if offset is None:
            owned.expected = begin
        elif is_other_topic(known, topic_id) or (end is not None and end < offset):
            _say_why(owned, end, topic_id)
            await self._assigning.reset(*owned.fence, owned.incarnation + 1, topic_id or known)
            owned.incarnation, owned.position, owned.expected, owned.missing = (
                owned.incarnation + 1,
                0,
                0,
                0,
            )
            known = topic_id or known
        if topic_id and topic_id != known:
            if known and offset is not None:
                _say_copied(owned)
            await self._assigning.note_topic_id(*owned.fence, topic_id)
        owned.topic_id = topic_id or known


def _reached(position: int | None) -> int:
    return -1 if position is None else position


def _plain(where: Any) -> str:
    return f"{where.topic}/{where.partition}"


def _say_why(owned: OwnedPartition, end: int | None, topic_id: str) -> None:
    """Why what was read of a partition is not what it holds now."""
    why = "the topic was deleted and made again"
    if not is_other_topic(owned.topic_id, topic_id):
        why = f"it ends at offset {end}: the topic was made again, or the broker lost records"
    logger.error(
        "%s: %s. %s offsets were read of what was there before. The streams go on behind what they "
        "hold, from its first record.",
        owned.topic_partition, why, owned.position,
    )  # fmt: skip


def _say_copied(owned: OwnedPartition) -> None:
    logger.warning(
        "%s is on another Kafka cluster than what was read of it: this worker goes on at offset "
        "%s, as of a copy. If it is no copy, `xl3m rebuild --all` reads it from its first record.",
        owned.topic_partition, owned.position,
    )  # fmt: skip


async def _sync_committed(
    tp: Any, offset: int | None, committed: int | None, broker: Broker
) -> None:
    """Make Kafka's committed offset say what Redis says, before Faust seeks to it."""
    if offset is None and committed:
        logger.error(
            "%s: the group has read up to offset %d, but Redis holds nothing of it: "
            "reading it again from the start.",
            _plain(tp), committed,
        )  # fmt: skip
    target = offset or 0
    if target == (committed or 0):
        return
    if not await broker.commit_offsets({tp: target}):
        logger.warning("%s: another rebalance came before it was taken over", _plain(tp))
