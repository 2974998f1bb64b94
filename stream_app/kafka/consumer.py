"""Consumer: Faust's Kafka consumer, mended where it passes over events, or counts what never came.

Faust throws away what it fetched while its flow stood still, seeks back to what the group has
committed, and trusts that nothing is read on between two assignments. The first fails where nothing
is committed, or 0; the last where an assignment was empty, or is still being taken over when the
next one begins. Of offsets that never came it makes a list, one by one, however many there are. And
a partition that was full and has room again may have to wait for a second until it is polled.
Knows offsets, generations and polls; no events.
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
"""The app's generation from when partitions are called back until they are given out anew;
aiokafka's own number for none is -1."""

SOON = 0.02
"""Seconds until it is seen that a partition which was full has room again."""


class Consumer(aiokafka.Consumer):
    """Reads what is assigned from where the group stands, and nothing while that is settled.

    Where the group has committed nothing, that is offset 0; what has expired there is passed over
    by the setting `consumer_auto_offset_reset="earliest"`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Faust lets go of it with the partition. (partition, offset) -> what was read before it
        self._gap: Any = defaultdict(dict[int, int])

    def _new_consumer_thread(self) -> ConsumerThread:
        """Called by Faust when it begins."""
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        """Called by Faust for what there is to read: what is polled of a topic of the app's
        `polled` is one message for each partition."""
        timeout = min(timeout, SOON) if self._buffered_partitions else timeout
        polled = await super()._getmany(active_partitions, timeout)
        whole = cast(Any, self.app).batched_topics
        return {
            tp: self._together(tp, records) if tp.topic in whole else self._each(tp, records)
            for tp, records in polled.items()
            if records
        }

    def _to_message(self, tp: TP, record: Any) -> Any:
        """Called by Faust, which knows no record that stands for several offsets."""
        message: Any = super()._to_message(tp, record)
        if isinstance(record, RangeRecord):
            message.first_offset = record.first_offset
            message.unreadable, message.empty = record.unreadable, record.empty
        return message

    async def _wait_next_records(self, timeout: float) -> Any:
        """Called by Faust to poll; if all partitions are full it sleeps for a second."""
        while self.flow_active and self._buffered_partitions and not self._get_active_partitions():
            await self.sleep(SOON)
            if self.should_stop:
                break
        return await super()._wait_next_records(timeout)

    def _together(self, tp: TP, records: Sequence[Record]) -> list[Record]:
        """They are acknowledged with the last one, so none before it is a hole."""
        self._gap[tp][records[-1].offset] = self._read_up_to(tp)
        return [bundle(records)]

    def _each(self, tp: TP, records: Sequence[Record]) -> Sequence[Record]:
        """Faust sees what never came between two of them; not what did not before the first."""
        self._gap[tp][records[0].offset] = self._read_up_to(tp)
        return records

    def _read_up_to(self, tp: TP) -> int:
        """The last offset that was read, or passed over by where reading began."""
        read = self._read_offset[tp]
        return -1 if read is None else read

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing came from `offset_from` until `offset_to` did."""
        self._gap[tp][offset_to] = offset_from - 1

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: the one behind all that is acknowledged without a hole. None:
        nothing new is. What never came is no hole, nor what came together."""
        acked, before = self._acked[tp], self._gap[tp]
        last = committed = (self._committed_offset[tp] or 0) - 1
        acked.sort()
        done = 0
        for offset in acked:
            if before.get(offset, offset - 1) > last:
                break
            last, done = max(last, offset), done + 1
            before.pop(offset, None)
        self._acked_index[tp].difference_update(acked[:done])
        del acked[:done]
        return last + 1 if last > committed else None

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> bool:
        """Set the group's committed offsets; False if the partitions are no longer ours."""
        return bool(await self._commit(offsets))

    def check(self, generation: int) -> None:
        """Raise Faust's RebalanceAgain, which makes it wait for the next assignment, if that is
        not the generation of the current one."""
        if generation != self.app.consumer_generation_id or generation == BETWEEN_GENERATIONS:
            raise RebalanceAgain("the partitions were called back meanwhile")

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every partition to its committed offset; returns these, None where there is none."""
        if not self.assignment():
            return {}
        committed = await super().seek_to_committed()
        if fresh := {tp: 0 for tp, offset in committed.items() if not offset}:
            await self.seek_wait(fresh)
        return committed

    async def offsets_at(self, start: Literal["latest"] | int, *partitions: TP) -> Mapping[TP, int]:
        """The end of each partition, or its first offset since a time in milliseconds."""
        thread = cast(ConsumerThread, self._thread)
        return cast(
            Mapping[TP, int], await thread.call_thread(thread.offsets_at, start, partitions)
        )

    async def topic_ids(self, names: Iterable[str]) -> Mapping[str, str]:
        """The ids of the topics, by which one that was created again differs."""
        thread = cast(ConsumerThread, self._thread)
        return cast(Mapping[str, str], await thread.call_thread(thread.topic_ids, names))

    def missing_topics(self) -> frozenset[str]:
        """Topics that are read and not there."""
        return cast(ConsumerThread, self._thread).topics.missing

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Called when partitions are given out. Faust stopped the flow when it lost some, but not
        if it had none; and it does not forget which were full, of which nothing is at hand now."""
        app: Any = self.app
        self._buffered_partitions.clear()
        app.fetch_state.forget_others(assigned)
        self.stop_flow()
        app.flow_control.suspend()
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """The last that Faust waits for before it reads on, so the last chance to see that the
        partitions were called back meanwhile."""
        generation = self.app.consumer_generation_id
        self.check(generation)
        await super().perform_seek()
        await self._begin_again()
        # Elsewhere Faust takes it for the last offset that was read, not for the next one.
        for tp in self.assignment():
            offset = self._read_offset[tp]
            self._read_offset[tp] = offset - 1 if offset else None
        cast(ConsumerThread, self._thread).ended.clear()
        self.check(generation)

    async def _begin_again(self) -> None:
        """What was seen of partitions that end too early is dealt with now, and must not be taken
        for their end once they have grown. One that nobody took over from where Redis stands, of
        the queries, is read from its first record."""
        thread, assigned = cast(ConsumerThread, self._thread), self.assignment()
        ended, thread.ended = thread.ended, {}
        again = {
            tp: 0
            for tp, end in ended.items()
            if tp in assigned and (self._read_offset[tp] or 0) > end
        }
        if again:
            await self.seek_wait(again)
            self._read_offset.update(again)
            self._committed_offset.update(dict.fromkeys(again))

    def resume_flow(self) -> None:
        """Read on, unless the partitions have just been called back."""
        self.check(self.app.consumer_generation_id)
        super().resume_flow()
