"""Consumer: Faust's Kafka consumer with fixes for skipped events, missing offsets and slow polls.

What Faust does, and what is fixed here:

- It drops what it fetched while its flow was stopped and seeks back to the committed offsets, but
  not where the group has committed nothing, or 0.
- It assumes that nothing is read between two assignments. That is wrong after an empty assignment,
  and when the next rebalance starts before an assignment is complete.
- It keeps missing offsets one by one in a list, even if there are millions.
- A partition whose buffer has space again may wait a second for its next poll.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from faust.tables.recovery import RebalanceAgain
from faust.transport.drivers import aiokafka
from faust.types import TP

from stream_app.kafka.consumer_thread import ConsumerThread
from stream_app.kafka.records import RangeRecord, Record, bundle

BETWEEN_GENERATIONS = -2
"""The app's generation from the revocation of partitions to the next assignment. aiokafka's own
number for none is -1."""

RESUME_SECONDS = 0.02
"""Time until a partition that was full and has space again is polled, at most."""


class Consumer(aiokafka.Consumer):
    """Reads the assigned partitions from the group's committed offsets, and nothing during a
    rebalance.

    Without a committed offset it starts at offset 0; if that has expired, the setting
    `consumer_auto_offset_reset="earliest"` applies.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # partition -> offset -> the offset read before it, if that is not the one just below.
        # Faust deletes a partition's entry when it is revoked.
        self._gap: Any = defaultdict(dict[int, int])

    def _new_consumer_thread(self) -> ConsumerThread:
        """Called by Faust at start."""
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        """Called by Faust for the next records. Those of the app's `batched_topics` become one
        bundle per partition."""
        timeout = min(timeout, RESUME_SECONDS) if self._buffered_partitions else timeout
        fetched = await super()._getmany(active_partitions, timeout)
        batched = cast(Any, self.app).batched_topics
        return {
            tp: self._bundled(tp, records) if tp.topic in batched else self._single(tp, records)
            for tp, records in fetched.items()
            if records
        }

    def _to_message(self, tp: TP, record: Any) -> Any:
        """Called by Faust, which drops the extra fields of a RangeRecord."""
        message: Any = super()._to_message(tp, record)
        if isinstance(record, RangeRecord):
            message.first_offset = record.first_offset
            message.unreadable, message.empty = record.unreadable, record.empty
        return message

    async def _wait_next_records(self, timeout: float) -> Any:
        """Called by Faust to poll. Its own method sleeps a second if all partitions are full."""
        while self.flow_active and self._buffered_partitions and not self._get_active_partitions():
            await self.sleep(RESUME_SECONDS)
            if self.should_stop:
                break
        return await super()._wait_next_records(timeout)

    def _bundled(self, tp: TP, records: Sequence[Record]) -> list[Record]:
        """The whole bundle is acknowledged with its last record: the others are not missing."""
        self._gap[tp][records[-1].offset] = self._read_up_to(tp)
        return [bundle(records)]

    def _single(self, tp: TP, records: Sequence[Record]) -> Sequence[Record]:
        """Faust sees missing offsets between two records of a poll, but none before the first."""
        self._gap[tp][records[0].offset] = self._read_up_to(tp)
        return records

    def _read_up_to(self, tp: TP) -> int:
        """The last offset before the next record: read, or before the start position."""
        read = self._read_offset[tp]
        return -1 if read is None else read

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Called by Faust: offsets from `offset_from` up to, not including, `offset_to` are
        missing."""
        self._gap[tp][offset_to] = offset_from - 1

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: the one after the last in an unbroken row of acknowledged records.
        None if there is nothing new. Missing and bundled offsets do not break the row."""
        acked, previous = self._acked[tp], self._gap[tp]
        last = committed = (self._committed_offset[tp] or 0) - 1
        acked.sort()
        count = 0
        for offset in acked:
            if previous.get(offset, offset - 1) > last:
                break
            last, count = max(last, offset), count + 1
            previous.pop(offset, None)
        self._acked_index[tp].difference_update(acked[:count])
        del acked[:count]
        return last + 1 if last > committed else None

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> bool:
        """Set the group's committed offsets; False if the partitions are no longer ours."""
        return bool(await self._commit(offsets))

    def check(self, generation: int) -> None:
        """Raise RebalanceAgain if a generation is over: Faust then waits for the next
        assignment."""
        if generation != self.app.consumer_generation_id or generation == BETWEEN_GENERATIONS:
            raise RebalanceAgain("the partitions were revoked meanwhile")

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek each partition to its committed offset, or to 0 without one. Returns the committed
        offsets, None where there is none."""
        if not self.assignment():
            return {}
        committed = await super().seek_to_committed()
        if uncommitted := {tp: 0 for tp, offset in committed.items() if not offset}:
            await self.seek_wait(uncommitted)
        return committed

    async def offsets_at(self, start: Literal["latest"] | int, *partitions: TP) -> Mapping[TP, int]:
        """The end of each partition, or its first offset at or after a time in milliseconds."""
        thread = cast(ConsumerThread, self._thread)
        return cast(
            Mapping[TP, int], await thread.call_thread(thread.offsets_at, start, partitions)
        )

    async def topic_ids(self, names: Iterable[str]) -> Mapping[str, str]:
        """The ids of topics; a recreated topic has a new id."""
        thread = cast(ConsumerThread, self._thread)
        return cast(Mapping[str, str], await thread.call_thread(thread.topic_ids, names))

    def missing_topics(self) -> frozenset[str]:
        """Subscribed topics that do not exist."""
        return cast(ConsumerThread, self._thread).topics.missing

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Called by Faust after a rebalance. Faust does not stop the flow if it had no partitions
        before, and it still counts partitions as full whose buffers are empty by now."""
        app: Any = self.app
        self._buffered_partitions.clear()
        app.fetch_state.forget_others(assigned)
        self.stop_flow()
        app.flow_control.suspend()
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Called by Faust as the last step before it continues to read: the last chance to notice
        that the partitions were revoked meanwhile."""
        generation = self.app.consumer_generation_id
        self.check(generation)
        await super().perform_seek()
        await self._restart_truncated()
        # Faust sets the next offset here, and elsewhere takes it for the last one that was read.
        for tp in self.assignment():
            offset = self._read_offset[tp]
            self._read_offset[tp] = offset - 1 if offset else None
        cast(ConsumerThread, self._thread).ended.clear()
        self.check(generation)

    async def _restart_truncated(self) -> None:
        """Read partitions that end before the committed offset from their first record, unless the
        assignment has reset them already; it does not for queries, which have no position in
        Redis."""
        thread, assigned = cast(ConsumerThread, self._thread), self.assignment()
        ended, thread.ended = thread.ended, {}
        truncated = {
            tp: 0
            for tp, end in ended.items()
            if tp in assigned and (self._read_offset[tp] or 0) > end
        }
        if truncated:
            await self.seek_wait(truncated)
            self._read_offset.update(truncated)
            self._committed_offset.update(dict.fromkeys(truncated))

    def resume_flow(self) -> None:
        """Continue to read, unless the partitions were just revoked."""
        self.check(self.app.consumer_generation_id)
        super().resume_flow()
