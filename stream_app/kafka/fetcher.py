"""Fetcher: decodes what aiokafka's fetcher fetched, so that no record ends the worker.

`install` gives aiokafka's fetcher our classes for decoding. A batch or record that cannot be read
becomes one RangeRecord with the reason, or, by a setting, its partition waits. Transaction markers
and aborted records are skipped, but RangeRecords cover their offsets: so they are not missing, and
the group can reach the end of the partition.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from aiokafka.consumer import fetcher as upstream
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError

from stream_app.kafka.decompression import Buffer
from stream_app.kafka.fetch_state import FetchState
from stream_app.kafka.record_batch import (
    DecodedRecord,
    FetchedRecords,
    RecordBatch,
    UnreadableError,
    UnreadableRange,
)
from stream_app.kafka.records import RangeRecord, Record

KEPT_BYTES = 65_536
"""Bytes of unreadable data that are kept for the dead letter."""
_PAUSE: Any = object()
_EARLIEST = upstream.OffsetResetStrategy.EARLIEST
_NONE = upstream.OffsetResetStrategy.NONE


class PartitionRecords(upstream.PartitionRecords):  # type: ignore[misc]  # aiokafka has no types
    """The records of a partition's fetched data in order. Iterating over them never raises."""

    def __init__(
        self, fetch_state: FetchState, tp: Any, records: FetchedRecords, *args: Any
    ) -> None:
        super().__init__(tp, records, *args)
        self.next_fetch_offset: int
        self.fetch_state = fetch_state
        self.skipped_from: int | None = None
        """The first of the offsets skipped since the last record."""

    def __iter__(self) -> Iterator[Any]:
        """aiokafka's own method calls one more function per record."""
        return self._records_iterator or iter(())

    def _unpack_records(self) -> Iterator[Any]:
        """Called by aiokafka once."""
        while (batch := self._records.next_batch()) is not None:
            while batch.codec and self.fetch_state.decompression_budget <= 0:
                yield _PAUSE
            try:
                yield from self._read_batch(batch)
                self.next_fetch_offset = max(self.next_fetch_offset, batch.end)
            except Exception as error:  # any error is caused by the fetched data
                for found in self._recovered(batch, error):
                    if isinstance(found, UnreadableRange) and self.fetch_state.unreadable == "wait":
                        yield from self._remaining()
                        self.fetch_state.block(self._tp, found)
                        return
                    yield self._as_record(found)
            else:
                if self.fetch_state.blocked:
                    self.fetch_state.unblock(self._tp)
        yield from self._remaining()

    def _read_batch(self, batch: RecordBatch) -> Iterator[Any]:
        """The records of a batch from the next offset on. Raises UnreadableError, and aiokafka's
        errors."""
        opened = batch.opened()
        if self._is_skipped(opened):
            if self.skipped_from is None:
                self.skipped_from = self.next_fetch_offset
            return
        end = batch.end
        for record in self._records_of(batch, opened):
            offset = record.offset
            if not self.next_fetch_offset <= offset < end:
                if offset < self.next_fetch_offset:
                    continue  # the fetch began in the middle of the batch
                raise UnreadableError(f"it contains offset {offset}, which is outside its range")
            result = self._consumer_record(self._tp, record)
            self.next_fetch_offset = offset + 1
            yield result if self.skipped_from is None else self._with_range(result)

    def _records_of(self, batch: RecordBatch, opened: Any) -> Iterator[Any]:
        records = batch.records(opened, self.fetch_state.max_batch_bytes)
        if batch.codec:
            self.fetch_state.decompression_budget -= len(batch.body or batch.raw)
        return records

    def _is_skipped(self, opened: Any) -> bool:
        """Whether a batch is a transaction marker, or part of an aborted transaction."""
        if self._isolation_level == upstream.READ_COMMITTED and opened.producer_id is not None:
            self._consume_aborted_up_to(opened.base_offset)
            if opened.is_control_batch and self._contains_abort_marker(opened):
                self._aborted_producers.discard(opened.producer_id)
            if opened.is_transactional and opened.producer_id in self._aborted_producers:
                return True
        return bool(opened.is_control_batch)

    def _recovered(
        self, batch: RecordBatch, error: Exception
    ) -> Iterator[DecodedRecord | UnreadableRange]:
        """The readable records and unreadable ranges of a batch with an error."""
        begin, end = self._bounds(batch)
        found = batch.one_by_one()
        if found is None:
            reason = str(error) if isinstance(error, UnreadableError) else _damaged(error)
            yield UnreadableRange(begin, end, reason, batch.raw)
            return
        for each in found:
            first = each.begin if isinstance(each, UnreadableRange) else each.offset
            after = each.end if isinstance(each, UnreadableRange) else each.offset + 1
            if self.next_fetch_offset < after and first < end:
                yield (
                    replace(each, end=min(end, each.end))
                    if isinstance(each, UnreadableRange)
                    else each
                )
        self.next_fetch_offset = max(self.next_fetch_offset, end)

    def _bounds(self, batch: RecordBatch) -> tuple[int, int]:
        """The first offset to read of a batch, and the one after its last. The header itself may be
        damaged: the end is at most the partition's end, and at least one offset is covered."""
        at, next_batch = self.next_fetch_offset, self._records.next_offset()
        highwater = self.fetch_state.highwater(self._tp)
        bounds = [bound for bound in (next_batch, highwater) if bound is not None and bound > at]
        end = min([batch.end, *bounds]) if batch.end > at else at + 1
        return (batch.base if at < batch.base < end else at), end

    def _as_record(self, found: DecodedRecord | UnreadableRange) -> Record:
        """A consumer record; that of an unreadable range has the last of its offsets."""
        if isinstance(found, UnreadableRange):
            begin = max(found.begin, self.next_fetch_offset)
            record = self._range_record(begin, found.end, found.raw, unreadable=found.reason)
        else:
            record = self._consumer_record(self._tp, found)
        self.next_fetch_offset = record.offset + 1
        return record if self.skipped_from is None else self._with_range(record)

    def _with_range(self, record: Record) -> RangeRecord:
        """The record as one that also covers the offsets skipped before it."""
        first_offset, self.skipped_from = self.skipped_from or 0, None
        return RangeRecord(**vars(record) | {"first_offset": first_offset})

    def _remaining(self) -> Iterator[Record]:
        """An empty record for skipped offsets that no record follows."""
        if self.skipped_from is not None and self.skipped_from < self.next_fetch_offset:
            yield self._range_record(self.skipped_from, self.next_fetch_offset, None, empty=True)
        self.skipped_from = None

    def _range_record(self, begin: int, end: int, raw: Buffer | None, **flags: Any) -> RangeRecord:
        value = None if raw is None else bytes(raw[:KEPT_BYTES])
        at = (self._tp.topic, self._tp.partition, end - 1)
        return RangeRecord(*at, -1, 0, None, value, None, -1, len(value or b""), (), begin, **flags)


class FetchResult(upstream.FetchResult):  # type: ignore[misc]
    """The fetched data of a partition, returned poll by poll within the decompression budget."""

    _partition_records: PartitionRecords | None

    def getall(self, max_records: int | None = None) -> list[Record]:
        """Called by aiokafka for the next records, at most `max_records`."""
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        records = list[Record]()
        for record in self._partition_records or ():
            if record is _PAUSE:
                break
            records.append(record)
            if len(records) == max_records:
                break
        else:
            self._update_position()
            self._partition_records = None
            return records
        self._update_position()
        return records


def install(fetcher: Any, fetch_state: FetchState) -> None:
    """Make aiokafka's fetcher use the classes of this module, before it fetches.

    Its REBOUND methods get a copy of aiokafka's module globals with our classes in it.
    """
    namespace = vars(upstream) | {
        "MemoryRecords": FetchedRecords,
        "PartitionRecords": partial(PartitionRecords, fetch_state),
        "FetchResult": FetchResult,
    }
    for name in REBOUND:
        method = FunctionType(getattr(upstream.Fetcher, name).__code__, namespace, name)
        method.__defaults__ = getattr(upstream.Fetcher, name).__defaults__
        setattr(fetcher, name, MethodType(method, fetcher))
    fetcher._set_error = partial(_on_fetch_error, fetcher, fetch_state)
    fetcher._default_reset_strategy = _NONE  # so that it reports what it would reset
    fetch_state.assignment = lambda: fetcher._subscriptions.subscription.assignment


REBOUND = ("_proc_fetch_request", "fetched_records")
"""Methods of aiokafka's fetcher that use the classes we replace."""


def _on_fetch_error(fetcher: Any, fetch_state: FetchState, tp: Any, error: Exception) -> None:
    """In place of the fetcher's `_set_error`: a missing or out-of-range offset is handled here and
    is not an error."""
    state = fetch_state.partition_state(tp)
    if state is not None and isinstance(error, NoOffsetForPartitionError):
        state.await_reset(_EARLIEST)
    elif state is not None and isinstance(error, OffsetOutOfRangeError):
        state.pause()
        fetch_state.out_of_range(tp, state.position)
    else:
        upstream.Fetcher._set_error(fetcher, tp, error)


def resume_at(state: Any, offset: int) -> None:
    """Continue a partition whose offset was out of range at an existing offset."""
    state.seek(offset)
    if state.paused:
        state.resume()


def read_uncommitted(fetcher: Any) -> Any:
    """A copy of the fetcher whose end offsets include open transactions."""
    uncommitted = copy.copy(fetcher)
    uncommitted._isolation_level = upstream.READ_UNCOMMITTED
    return uncommitted


def _damaged(error: Exception) -> str:
    return f"the batch is damaged ({str(error) or type(error).__name__})"
