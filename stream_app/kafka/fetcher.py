"""Fetcher: what aiokafka fetched becomes records, and no record ends the worker.

aiokafka's fetcher is used as it is, but for the classes that read what it fetched. A batch or a
record that cannot be read becomes one record that says so, at the place of what it stands for; or
its partition waits, by a setting. What is passed over rightly, the marks of transactions and what
was aborted in them, is accounted for, so that it is neither missing nor keeps the group from
reaching the end. Knows aiokafka's fetcher and offsets; not what records say.
"""

import asyncio
import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from aiokafka.consumer import fetcher as upstream
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError

from stream_app.kafka.decompression import Buffer
from stream_app.kafka.record_batch import (
    DecodedRecord,
    FetchedRecords,
    RecordBatch,
    UnreadableError,
    UnreadableRange,
)
from stream_app.kafka.records import RangeRecord, Record
from stream_app.settings import IsolationLevel, Unreadable
from stream_app.settings.variables import variable

logger = logging.getLogger("xl3m")

KEPT_BYTES = 65_536
"""Of what cannot be read, for its dead letter."""
POLL_BYTES = 16 << 20
"""A poll inflates no further batch after so many bytes."""
RETRY_SECONDS = 30.0
"""Between two looks at what a partition waits for."""
TOPICS = "topics"
"""What is blocked when a topic is missing; the others are partitions, and the group."""
_PAUSE: Any = object()
_EARLIEST = upstream.OffsetResetStrategy.EARLIEST
_NONE = upstream.OffsetResetStrategy.NONE


@dataclass
class FetchState:
    """How one worker fetches; lives on its consumer's thread. blocked: the partitions that wait for
    a person, and why; out_of_range: called with an offset that a partition does not have.
    decompression_budget: how many more bytes the current poll may decompress."""

    max_batch_bytes: int = 64 << 20
    isolation_level: IsolationLevel = "read_committed"
    unreadable: Unreadable = "skip"
    blocked: dict[str, str] = field(default_factory=dict)
    out_of_range: Callable[[Any, int], None] = lambda tp, offset: None
    decompression_budget: int = POLL_BYTES
    assignment: Callable[[], Any] = lambda: None

    def partition_state(self, tp: Any) -> Any:
        """aiokafka's state of a partition; None if it is not assigned now."""
        assignment = self.assignment()
        return assignment.state_value(tp) if assignment and tp in assignment.tps else None

    def highwater(self, tp: Any) -> int | None:
        """The offset that the next record will get, as of the last fetch."""
        state = self.partition_state(tp)
        return None if state is None else state.highwater

    def block(self, tp: Any, unreadable: UnreadableRange) -> None:
        """The partition waits at what cannot be read, and looks again after a while."""
        name, state = f"{tp.topic}/{tp.partition}", self.partition_state(tp)
        self.blocked[name] = f"waits at offset {unreadable.begin}: {unreadable.reason}"
        logger.error(
            "%s %s; the other partitions go on. %s=skip passes over it.",
            name, self.blocked[name], variable("unreadable"),
        )  # fmt: skip
        if state is not None:
            state.pause()
            loop = asyncio.get_running_loop()
            loop.call_later(RETRY_SECONDS, lambda: state.paused and state.resume())

    def unblock(self, tp: Any) -> None:
        """The partition waits no more."""
        if self.blocked.pop(f"{tp.topic}/{tp.partition}", None):
            logger.warning("%s/%d goes on", tp.topic, tp.partition)

    def forget_others(self, assigned: Any) -> None:
        """Those that are not assigned any more wait for nothing here."""
        names = {f"{tp.topic}/{tp.partition}" for tp in assigned}
        for name in (
            {*list(self.blocked)} - names - {TOPICS}
        ):  # another thread may add some meanwhile
            self.blocked.pop(name, None)


class PartitionRecords(upstream.PartitionRecords):  # type: ignore[misc]  # aiokafka has no types
    """The records of what was fetched of a partition, in their order. Nothing of it raises."""

    def __init__(
        self, fetch_state: FetchState, tp: Any, records: FetchedRecords, *args: Any
    ) -> None:
        super().__init__(tp, records, *args)
        self.next_fetch_offset: int
        self.fetch_state = fetch_state
        self.passed: int | None = None
        """The first offset that was rightly passed over since the last record."""

    def __iter__(self) -> Iterator[Any]:
        """aiokafka's own goes through one more function for each record."""
        return self._records_iterator or iter(())

    def _unpack_records(self) -> Iterator[Any]:
        """Called by aiokafka once."""
        while (batch := self._records.next_batch()) is not None:
            while batch.codec and self.fetch_state.decompression_budget <= 0:
                yield _PAUSE
            try:
                yield from self._read_batch(batch)
                self.next_fetch_offset = max(self.next_fetch_offset, batch.end)
            except Exception as error:  # whatever it is, it comes of what was fetched
                for found in self._salvaged(batch, error):
                    if isinstance(found, UnreadableRange) and self.fetch_state.unreadable == "wait":
                        yield from self._rest()
                        self.fetch_state.block(self._tp, found)
                        return
                    yield self._given(found)
            else:
                if self.fetch_state.blocked:
                    self.fetch_state.unblock(self._tp)
        yield from self._rest()

    def _read_batch(self, batch: RecordBatch) -> Iterator[Any]:
        """What is to be read of a batch. Raises what aiokafka does, and UnreadableError."""
        opened = batch.opened()
        if self._is_passed(opened):
            self.passed = self.next_fetch_offset if self.passed is None else self.passed
            return
        end = batch.end
        for record in self._records_of(batch, opened):
            offset = record.offset
            if not self.next_fetch_offset <= offset < end:
                if offset < self.next_fetch_offset:
                    continue  # it was asked for from its middle
                raise UnreadableError(f"it holds offset {offset}, which is not its own")
            made = self._consumer_record(self._tp, record)
            self.next_fetch_offset = offset + 1
            yield made if self.passed is None else self._with_range(made)

    def _records_of(self, batch: RecordBatch, opened: Any) -> Iterator[Any]:
        found = batch.records(opened, self.fetch_state.max_batch_bytes)
        if batch.codec:
            self.fetch_state.decompression_budget -= len(batch.body or batch.raw)
        return found

    def _is_passed(self, opened: Any) -> bool:
        """Whether it is a mark of a transaction, or of one that was aborted."""
        if self._isolation_level == upstream.READ_COMMITTED and opened.producer_id is not None:
            self._consume_aborted_up_to(opened.base_offset)
            if opened.is_control_batch and self._contains_abort_marker(opened):
                self._aborted_producers.discard(opened.producer_id)
            if opened.is_transactional and opened.producer_id in self._aborted_producers:
                return True
        return bool(opened.is_control_batch)

    def _salvaged(
        self, batch: RecordBatch, error: Exception
    ) -> Iterator[DecodedRecord | UnreadableRange]:
        """What can be read of it all the same, and what cannot."""
        begin, end = self._bounds(batch)
        found = batch.one_by_one()
        if found is None:
            reason = str(error) if isinstance(error, UnreadableError) else _damaged(error)
            yield UnreadableRange(begin, end, reason, batch.raw)
            return
        for each in found:
            first = each.begin if isinstance(each, UnreadableRange) else each.offset
            behind = each.end if isinstance(each, UnreadableRange) else each.offset + 1
            if self.next_fetch_offset < behind and first < end:
                yield (
                    replace(each, end=min(end, each.end))
                    if isinstance(each, UnreadableRange)
                    else each
                )
        self.next_fetch_offset = max(self.next_fetch_offset, end)

    def _bounds(self, batch: RecordBatch) -> tuple[int, int]:
        """Its first offset that is to be read, and the one behind its last. The header may be what
        is damaged: no more is passed over than the partition has, nor less than one offset."""
        at, behind = self.next_fetch_offset, self._records.next_offset()
        highwater = self.fetch_state.highwater(self._tp)
        bounds = [bound for bound in (behind, highwater) if bound is not None and bound > at]
        end = min([batch.end, *bounds]) if batch.end > at else at + 1
        return (batch.base if at < batch.base < end else at), end

    def _given(self, found: DecodedRecord | UnreadableRange) -> Record:
        """As the record that goes on; what cannot be read stands at the last of its offsets."""
        if isinstance(found, UnreadableRange):
            begin = max(found.begin, self.next_fetch_offset)
            made = self._stand_in(begin, found.end, found.raw, unreadable=found.reason)
        else:
            made = self._consumer_record(self._tp, found)
        self.next_fetch_offset = made.offset + 1
        return made if self.passed is None else self._with_range(made)

    def _with_range(self, made: Record) -> RangeRecord:
        """A record that accounts for what was passed over before it as well."""
        begins, self.passed = self.passed or 0, None
        return RangeRecord(**vars(made) | {"first_offset": begins})

    def _rest(self) -> Iterator[Record]:
        """What was passed over last has no record behind it to account for it."""
        if self.passed is not None and self.passed < self.next_fetch_offset:
            yield self._stand_in(self.passed, self.next_fetch_offset, None, empty=True)
        self.passed = None

    def _stand_in(self, begin: int, end: int, raw: Buffer | None, **what: Any) -> RangeRecord:
        value = None if raw is None else bytes(raw[:KEPT_BYTES])
        at = (self._tp.topic, self._tp.partition, end - 1)
        return RangeRecord(*at, -1, 0, None, value, None, -1, len(value or b""), (), begin, **what)


class FetchResult(upstream.FetchResult):  # type: ignore[misc]
    """What was fetched of a partition, given out poll by poll, within what one may decompress."""

    _partition_records: PartitionRecords | None

    def getall(self, max_records: int | None = None) -> list[Record]:
        """As aiokafka's own."""
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        taken = list[Record]()
        for record in self._partition_records or ():
            if record is _PAUSE:
                break
            taken.append(record)
            if len(taken) == max_records:
                break
        else:
            self._update_position()
            self._partition_records = None
            return taken
        self._update_position()
        return taken


def install(fetcher: Any, fetch_state: FetchState) -> None:
    """Have aiokafka's fetcher read with what is here. It has fetched nothing yet."""
    ours = vars(upstream) | {
        "MemoryRecords": FetchedRecords,
        "PartitionRecords": partial(PartitionRecords, fetch_state),
        "FetchResult": FetchResult,
    }
    for name in REBOUND:
        method = FunctionType(getattr(upstream.Fetcher, name).__code__, ours, name)
        method.__defaults__ = getattr(upstream.Fetcher, name).__defaults__
        setattr(fetcher, name, MethodType(method, fetcher))
    fetcher._set_error = partial(_on_fetch_error, fetcher, fetch_state)
    fetcher._default_reset_strategy = _NONE  # so that it says what it would reset
    fetch_state.assignment = lambda: fetcher._subscriptions.subscription.assignment


REBOUND = ("_proc_fetch_request", "fetched_records")
"""Methods of aiokafka's fetcher that name the classes which are ours here."""


def _on_fetch_error(fetcher: Any, fetch_state: FetchState, tp: Any, error: Exception) -> None:
    """In place of the fetcher's `_set_error`: an offset that is not there is no error."""
    state = fetch_state.partition_state(tp)
    if state is not None and isinstance(error, NoOffsetForPartitionError):
        state.await_reset(_EARLIEST)
    elif state is not None and isinstance(error, OffsetOutOfRangeError):
        state.pause()
        fetch_state.out_of_range(tp, state.position)
    else:
        upstream.Fetcher._set_error(fetcher, tp, error)


def resume_at(state: Any, offset: int) -> None:
    """Have a partition whose offset was out of range go on from one that it has."""
    state.seek(offset)
    if state.paused:
        state.resume()


def read_uncommitted(fetcher: Any) -> Any:
    """The fetcher as one that asks for offsets of the log, transactions that are open and all."""
    twin = copy.copy(fetcher)
    twin._isolation_level = upstream.READ_UNCOMMITTED
    return twin


def _damaged(error: Exception) -> str:
    return f"the batch is damaged ({str(error) or type(error).__name__})"
