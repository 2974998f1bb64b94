"""Fetched record batches are read as aiokafka reads them. Where it fails, every readable record is
read, and every offset is accounted for. Copied code of aiokafka is compared with the original.
"""

import gzip
import inspect
import logging
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import consumer as aiokafka_consumer
from aiokafka.consumer import fetcher as upstream
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from faust.transport import consumer as faust_consumer
from faust.transport.conductor import Conductor
from faust.transport.drivers import aiokafka as faust_driver

from stream_app.kafka.decompression import (
    GZIP,
    NAMES,
    DecompressionError,
    TooLargeError,
    decompress,
    missing_codecs,
)
from stream_app.kafka.fetch_state import FetchState
from stream_app.kafka.fetcher import REBOUND, FetchResult, PartitionRecords
from stream_app.kafka.record_batch import FetchedRecords
from stream_app.kafka.records import first_offset, is_empty, unreadable_reason
from tests.support import raw
from tests.support.raw import Raw, batch

TP = TopicPartition("topic", 3)


def read(data: bytes, at: int = 0, aborted: Any = None, **how: Any) -> list[Any]:
    """The records of fetched data from an offset on."""
    level = how.pop("level", 1)
    state = FetchState(**how)
    records = PartitionRecords(
        state, TP, FetchedRecords(data), aborted, at, None, None, True, level
    )
    return [*records]


def as_aiokafka(data: bytes, at: int = 0, aborted: Any = None, level: int = 1) -> list[Any]:
    records = MemoryRecords(data)
    return [*upstream.PartitionRecords(TP, records, aborted, at, None, None, True, level)]


def offsets(records: Sequence[Any]) -> list[int]:
    return [record.offset for record in records]


def assert_accounted(records: Sequence[Any], begin: int, end: int) -> None:
    """Assert that the records, in order, account for every offset."""
    for record in records:
        assert first_offset(record) <= begin <= record.offset
        begin = record.offset + 1
    assert begin == end


def some(count: int, word: bytes = b"value") -> list[Raw]:
    return [Raw(b"%s %d" % (word, i), b"key", [(b"n", b"v")]) for i in range(count)]


@pytest.mark.parametrize("codec", raw.CODECS.values(), ids=raw.CODECS)
def test_what_aiokafka_reads_is_read_as_it_does(codec: int) -> None:
    rng = Random(codec)
    for _ in range(50):
        base, parts = rng.randrange(100), list[bytes]()
        at = base
        for _ in range(rng.randint(1, 4)):
            records = [
                Raw(rng.choice([None, b"", rng.randbytes(rng.randrange(200))]),
                    rng.choice([None, b"", b"key"]),
                    [(b"name", rng.choice([None, b"x"]))] * rng.randrange(3))
                for _ in range(rng.randint(1, 9))
            ]  # fmt: skip
            flags = rng.choice([0, raw.LOG_APPEND_TIME])
            parts.append(batch(records, codec, at, attributes=flags))
            at += len(records)
        data = b"".join(parts)
        assert read(data, base) == as_aiokafka(data, base)
        cut = data[: rng.randrange(len(parts[0]), len(data) + 1)]  # as a broker does
        assert read(cut, base) == as_aiokafka(cut, base)


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", [0, 1, 2, 3])
def test_the_old_formats_are_read(magic: int, codec: int) -> None:
    if magic == 0 and codec == 3:
        pytest.skip("there was no lz4 yet")
    builder = LegacyRecordBatchBuilder(magic, codec, 99_999)
    for i in range(5):
        builder.append(i, 1000 + i if magic else None, b"k", b"value %d" % i)
    data = builder.build()
    if codec:  # a broker gives the message that holds them the last one's offset
        struct.pack_into(">q", data, 0, 4)
    data = bytes(data)
    assert [record.value for record in read(data)] == [b"value %d" % i for i in range(5)]
    assert read(data) == as_aiokafka(data)
    flipped = bytearray(data)
    flipped[-2] ^= 1
    assert unreadable_reason(read(bytes(flipped))[-1])


def test_a_header_whose_name_is_not_text_is_read_with_a_mark_in_its_place() -> None:
    odd = Raw(b"odd", b"key", [(b"a\xff", b"\xff"), (b"b", None)])
    for codec in raw.CODECS.values():
        found = read(batch([*some(2), odd, *some(2)], codec, 7), 7)
        assert offsets(found) == [7, 8, 9, 10, 11]
        assert found[2].headers == (("a\N{REPLACEMENT CHARACTER}", b"\xff"), ("b", None))
        assert [record.value for record in found[2:4]] == [b"odd", b"value 0"]
        assert not any(map(unreadable_reason, found))
        assert found[0] == as_aiokafka(batch(some(1), base=7))[0]


@pytest.mark.guarantee("Unreadable records")
def test_a_damaged_record_costs_no_other() -> None:
    for codec in raw.CODECS.values():
        found = read(batch([*some(2), Raw(b"bad", extra=b"\0\0"), *some(2)], codec, 7), 7)
        assert [bool(unreadable_reason(record)) for record in found] == [0, 0, 1, 0, 0]
        assert offsets(found) == [7, 8, 9, 10, 11]
        assert b"bad" in found[2].value
        assert_accounted(found, 7, 12)


@pytest.mark.parametrize(
    ("body", "readable"),
    [
        (b"", 0),
        (b"\xff" * 30, 0),
        (some(1)[0].encoded(0) + b"\xfe\xff\xff\xff\x0f", 1),
        (some(1)[0].encoded(0) + b"\x7e", 1),
    ],
)
def test_what_is_left_of_a_damaged_batch_is_one_record(body: bytes, readable: int) -> None:
    for codec in raw.CODECS.values():
        data = batch([], codec, 5, body=body, count=4) + batch(some(1), base=9)
        found = read(data, 5)
        assert offsets(found) == [*range(5, 5 + readable), 8, 9]
        assert unreadable_reason(found[readable]).startswith("the batch is damaged")
        assert_accounted(found, 5, 10)


def test_offsets_outside_a_batch_are_never_returned() -> None:
    strange = [Raw(b"x", delta=delta) for delta in (0, 10**9, -5)]
    found = read(batch(strange, base=50) + batch(some(1), base=53), 50)
    assert max(offsets(found)) == 53
    assert_accounted(found, 50, 54)


def test_a_damaged_header_passes_over_no_more_than_there_is() -> None:
    data = bytearray(batch(some(3), base=10))
    struct.pack_into(">i", data, 23, 2**31 - 1)  # the last offset's
    behind = batch(some(2), base=13)
    assert offsets(read(bytes(data) + behind, 10)) == [12, 13, 14]
    state = FetchState()
    state.highwater = lambda tp: 12  # type: ignore[method-assign]
    records = PartitionRecords(
        state, TP, FetchedRecords(bytes(data)), None, 10, None, None, True, 1
    )
    assert offsets([*records]) == [11]
    struct.pack_into(">i", data, 23, -7)
    assert offsets(read(bytes(data) + behind, 10)) == [10, 13, 14]


def test_only_a_cut_off_batch_is_one_that_cannot_be_read() -> None:
    data = batch(some(3), base=4)
    found = read(data[:-1], 4)
    assert offsets(found) == [6] and "damaged" in unreadable_reason(found[0])
    assert "cut off" in unreadable_reason(read(data[:20], 4)[0])
    assert read(b"", 4) == []


def test_an_unknown_codec_or_format_is_named() -> None:
    [record] = read(batch(some(2), attributes=6))
    assert "unknown compression codec 6" in unreadable_reason(record)
    data = bytearray(batch(some(2)))
    data[16] = 3
    [record] = read(bytes(data))
    assert "format" in unreadable_reason(record)


@pytest.mark.guarantee("Unreadable records")
@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_nothing_is_decompressed_beyond_the_limit(codec: int) -> None:
    text = b"x" * 3_000_000
    data = raw._COMPRESS[codec](text)
    assert bytes(decompress(codec, data, len(text))) == text
    with pytest.raises(TooLargeError, match="more than 2999999 bytes"):
        decompress(codec, data, len(text) - 1)
    found = read(batch([Raw(text)], codec) + batch(some(1), base=1), max_batch_bytes=1000)
    assert "XL3M_MAX_BATCH_BYTES" in unreadable_reason(found[0])
    assert len(found[0].value) <= 65_536
    assert found[1].value == b"value 0"


@pytest.mark.parametrize("codec", NAMES)
def test_damaged_data_is_refused_with_a_reason(codec: int) -> None:
    rng, data = Random(codec), bytearray(raw._COMPRESS[codec](b"some text " * 1000))
    for _ in range(300):
        wrong = data[: rng.randrange(len(data))] if rng.random() < 0.3 else data[:]
        for _ in range(rng.randrange(4)):
            if wrong:
                wrong[rng.randrange(len(wrong))] = rng.randrange(256)
        try:
            decompress(codec, bytes(wrong), 100_000)
        except DecompressionError as error:
            assert str(error)


def test_all_codecs_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_codecs() == []
    monkeypatch.setitem(__import__("sys").modules, "cramjam", None)
    assert missing_codecs() == ["snappy", "lz4"]


# -- transactions ------------------------------------------------------------------------------


def mark(base: int, producer: int, committed: bool) -> bytes:
    """The marker at the end of a transaction."""
    flags = raw.CONTROL | raw.TRANSACTIONAL
    record = Raw(b"\0" * 6, struct.pack(">hh", 0, int(committed)))
    return batch([record], base=base, attributes=flags, producer=producer)


def in_transaction(count: int, base: int, producer: int) -> bytes:
    flags = raw.TRANSACTIONAL
    return batch(some(count), 2, base, attributes=flags, producer=producer)


@pytest.mark.guarantee("Unreadable records")
def test_the_next_record_stands_for_skipped_offsets() -> None:
    data = in_transaction(2, 0, 1) + mark(2, 1, True) + in_transaction(3, 3, 1)
    data += mark(6, 1, False) + in_transaction(1, 7, 1) + mark(8, 1, True)
    found = read(data, 0, [(1, 3)])
    assert offsets(found) == [0, 1, 7, 8]
    assert [first_offset(record) for record in found] == [0, 1, 2, 8]
    assert [is_empty(record) for record in found] == [False, False, False, True]
    assert found[2].value == b"value 0"
    assert_accounted(found, 0, 9)
    uncommitted = read(data, 0, None, level=0)
    assert offsets(uncommitted) == [0, 1, 3, 4, 5, 7, 8]
    assert_accounted(uncommitted, 0, 9)


def test_what_is_damaged_behind_a_mark_accounts_for_both() -> None:
    wrong = bytearray(batch(some(2), base=1))
    wrong[-1] ^= 1
    found = read(mark(0, 1, True) + bytes(wrong))
    assert offsets(found) == [2] and first_offset(found[0]) == 0


def test_offsets_missing_in_a_batch_or_between_two_stay_missing() -> None:
    kept = [Raw(b"x", delta=delta) for delta in (0, 2)]
    found = read(batch(kept, base=0, count=2)[:0] + batch(some(1)) + batch(some(1), base=5))
    assert [first_offset(record) for record in found] == [0, 5]


def test_every_member_of_gzip_is_read_however_many_there_are() -> None:
    member = gzip.compress(b"")
    data = member * (4_000_000 // len(member)) + gzip.compress(b"behind them all")
    assert bytes(decompress(GZIP, data, 1000)) == b"behind them all"


def test_gzip_that_ends_within_a_member_is_refused() -> None:
    whole = gzip.compress(b"x" * 100_000)
    for end in (len(whole) - 1, len(whole) // 2, 3):
        with pytest.raises(DecompressionError, match="too early"):
            decompress(GZIP, whole + whole[:end], 1_000_000)


# -- waiting, and what a poll may decompress ------------------------------------------------------


def test_a_partition_that_is_to_wait_ends_before_what_cannot_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = bytearray(batch(some(2), base=3))
    wrong[-1] ^= 1
    state = FetchState(unreadable="wait")
    data = batch(some(2)) + mark(2, 1, True) + bytes(wrong) + batch(some(1), base=5)
    records = PartitionRecords(state, TP, FetchedRecords(data), None, 0, None, None, True, 1)
    with caplog.at_level(logging.ERROR, "xl3m"):
        found = [*records]
    assert offsets(found) == [0, 1, 2] and is_empty(found[2])
    assert records.next_fetch_offset == 3
    assert "waits at offset 3: its checksum is wrong" in state.blocked["topic/3"]
    assert "XL3M_UNREADABLE=skip" in caplog.text
    whole = batch(some(2), base=3)
    assert (
        len([*PartitionRecords(state, TP, FetchedRecords(whole), None, 3, None, None, True, 1)])
        == 2
    )
    assert not state.blocked


class Assignment:
    """A stand-in for aiokafka's assignment with one partition."""

    active = True

    def __init__(self, position: int) -> None:
        self.state = TopicPartitionState(self)
        self.state.seek(position)

    def state_value(self, tp: Any) -> TopicPartitionState:
        return self.state


@pytest.mark.guarantee("Unreadable records")
async def test_a_poll_stays_within_its_decompression_budget_and_the_next_continues() -> None:
    state, assignment = FetchState(), Assignment(0)
    data = b"".join(batch([Raw(b"x" * 1000)] * 3, 4, 3 * i) for i in range(4))
    records = PartitionRecords(state, TP, FetchedRecords(data), None, 0, None, None, True, 1)
    result = FetchResult(TP, assignment=assignment, partition_records=records, backoff=0)
    polls = list[list[int]]()
    while result.has_more():
        state.decompression_budget = 3500
        polls.append(offsets(result.getall(100)))
        assert assignment.state.position == polls[-1][-1] + 1
    assert [offset for poll in polls for offset in poll] == [*range(12)]
    assert [len(poll) for poll in polls] == [6, 6]


# -- what is aiokafka's own and Faust's --------------------------------------------------------


def signature(what: Any) -> str:
    return str(inspect.signature(what))


async def test_what_is_rested_on_is_as_it_was() -> None:
    assert {
        name: signature(getattr(upstream.Fetcher, name)) for name in (*REBOUND, "_set_error")
    } == {
        "_proc_fetch_request": "(self, assignment, node_id, request)",
        "fetched_records": "(self, partitions, timeout=0, max_records=None)",
        "_set_error": "(self, tp, error)",
    }
    names = upstream.Fetcher._proc_fetch_request.__code__.co_names
    assert {"MemoryRecords", "PartitionRecords", "FetchResult", "_set_error"} <= {*names}
    assert "FetchResult" in upstream.Fetcher.fetched_records.__code__.co_names
    for name in REBOUND:
        assert not getattr(upstream.Fetcher, name).__code__.co_freevars
    assert signature(upstream.PartitionRecords.__init__) == (
        "(self, tp, records, aborted_transactions, fetch_offset, key_deserializer, "
        "value_deserializer, check_crcs, isolation_level)"
    )
    assert signature(upstream.FetchResult.__init__) == (
        "(self, tp, *, assignment, partition_records, backoff)"
    )
    for name in ("_consume_aborted_up_to", "_contains_abort_marker", "_consumer_record"):
        assert hasattr(upstream.PartitionRecords, name)
    for name in ("pause", "resume", "paused", "await_reset", "position", "highwater"):
        assert hasattr(TopicPartitionState, name) or name in vars(TopicPartitionState(None))
    assert signature(GroupCoordinator.check_errors) == "(self)"
    assert signature(GroupCoordinator.request_rejoin) == "(self)"
    source = inspect.getsource(aiokafka_consumer.AIOKafkaConsumer)
    assert "isolation_level=self._isolation_level" in source


def test_what_is_rested_on_of_faust_is_as_it_was() -> None:
    thread = faust_driver.AIOKafkaConsumerThread
    assert "(self, transport: " in signature(thread._create_worker_consumer)
    assert list(inspect.signature(thread._fetch_records).parameters) == [
        "self", "consumer", "active_partitions", "timeout", "max_records",
    ]  # fmt: skip
    assert list(inspect.signature(thread._highwaters).parameters) == ["self", "partitions"]
    assert signature(faust_driver.Consumer._new_consumer_thread).startswith("(self)")
    assert list(inspect.signature(faust_driver.Consumer._to_message).parameters) == [
        "self", "tp", "record",
    ]  # fmt: skip
    assert hasattr(Conductor, "_update_indices")
    source = inspect.getsource(faust_consumer.Consumer._drain_messages)
    assert "_add_gap(tp, r_offset + 1, offset)" in source
