"""Consumer: Faust's Kafka consumer, mended where it passes over events, or counts what never came.

Faust throws away what it fetched while its flow stood still, seeks back to what the group has
committed, and trusts that nothing is read on between two assignments. The first fails where nothing
is committed, or 0; the last where an assignment was empty, or is still being taken over when the
next one begins. Of offsets that never came it makes a list, one by one, however many there are. And
a partition that was full and has room again may have to wait for a second until it is polled.
Knows offsets, generations and polls; no events.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

from faust.tables.recovery import RebalanceAgain
from faust.transport.drivers import aiokafka
from faust.types import TP

from stream_app.polled import Record, together

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

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        """Called by Faust for what there is to read: what is polled of a topic of the app's
        `polled` is one message for each partition."""
        timeout = min(timeout, SOON) if self._buffered_partitions else timeout
        polled = await super()._getmany(active_partitions, timeout)
        whole = cast(Any, self.app).polled
        return {
            tp: self._together(tp, records) if tp.topic in whole else records
            for tp, records in polled.items()
            if records
        }

    async def _wait_next_records(self, timeout: float) -> Any:
        """Called by Faust to poll; if all partitions are full it sleeps for a second."""
        while self.flow_active and self._buffered_partitions and not self._get_active_partitions():
            await self.sleep(SOON)
            if self.should_stop:
                break
        return await super()._wait_next_records(timeout)

    def _together(self, tp: TP, records: Sequence[Record]) -> list[Record]:
        """They are acknowledged with the last one, so none before it is a hole."""
        read = self._read_offset[tp]
        self._gap[tp][records[-1].offset] = records[0].offset - 1 if read is None else read
        return [together(records)]

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing came from `offset_from` until `offset_to` did."""
        self._gap[tp][offset_to] = offset_from - 1

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: the one behind all that is acknowledged without a hole. None:
        nothing new is. What never came is no hole, nor what came together."""
        acked, before, last = self._acked[tp], self._gap[tp], self._committed_offset[tp]
        acked.sort()
        done = 0
        for offset in acked:
            if last and before.get(offset, offset - 1) > last:
                break
            last, done = offset, done + 1
            before.pop(offset, None)
        self._acked_index[tp].difference_update(acked[:done])
        del acked[:done]
        return last + 1 if done and last is not None else None

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

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Called when partitions are given out. Faust stopped the flow when it lost some, but not
        if it had none; and it does not forget which were full, of which nothing is at hand now."""
        app: Any = self.app
        self._buffered_partitions.clear()
        self.stop_flow()
        app.flow_control.suspend()
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """The last that Faust waits for before it reads on, so the last chance to see that the
        partitions were called back meanwhile."""
        generation = self.app.consumer_generation_id
        self.check(generation)
        await super().perform_seek()
        self.check(generation)

    def resume_flow(self) -> None:
        """Read on, unless the partitions have just been called back."""
        self.check(self.app.consumer_generation_id)
        super().resume_flow()
