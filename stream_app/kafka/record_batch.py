"""Record batches: divides fetched data into batches, and decodes their records.

aiokafka's C extension decodes each batch, after a size-limited decompression. If that fails, the
batch is decoded here record by record: a header name that is not UTF-8 is replaced, and a damaged
record costs no other record.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

from stream_app.kafka.decompression import Buffer, TooLargeError, decompress
from stream_app.settings.variables import variable

# BaseOffset, Length, PartitionLeaderEpoch, Magic, CRC, Attributes, LastOffsetDelta,
# FirstTimestamp, MaxTimestamp, ProducerId, ProducerEpoch, BaseSequence, Records
_HEADER = struct.Struct(">qiibIhiqqqhii")
_PREFIX = struct.Struct(">qi")
_MAGIC_AT, _ATTRIBUTES_AT = 16, 21
_LEGACY_VALUE_AT = {0: 18, 1: 26}  # of a message set's message: after its attributes and time
_CODECS, _LOG_APPEND_TIME = 7, 8
_LEGACY_MIN_BYTES = 26


class UnreadableError(ValueError):
    """A batch that cannot be read; the message is the reason."""


@dataclass(frozen=True, slots=True)
class DecodedRecord:
    """A record with the fields of aiokafka's records."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


@dataclass(frozen=True, slots=True)
class UnreadableRange:
    """Offsets from `begin` up to `end` that cannot be read, the reason, and their raw bytes."""

    begin: int
    end: int
    reason: str
    raw: Buffer


class FetchedRecords:
    """The fetched batches of a partition; the last may be cut off. Data without a complete batch
    counts as one batch, which is unreadable."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data or b"")
        self.size = len(self.data)
        self.at = 0

    def size_in_bytes(self) -> int:
        """Called by aiokafka."""
        return self.size

    def has_next(self) -> bool:
        """Whether there is another batch."""
        return self._end() is not None

    def next_batch(self) -> "RecordBatch | None":
        """The next batch; None at the end."""
        at, end = self.at, self._end()
        if end is None:
            return None
        self.at = end
        return RecordBatch(self.data[at:end])

    def next_offset(self) -> int | None:
        """The next batch's first offset; None if it is unknown."""
        if self._end() is None or self.size - self.at < _PREFIX.size:
            return None
        return int(_PREFIX.unpack_from(self.data, self.at)[0])

    def _end(self) -> int | None:
        left = self.size - self.at
        if left >= _PREFIX.size:
            length: int = _PREFIX.unpack_from(self.data, self.at)[1]
            if 0 <= length <= left - _PREFIX.size:
                return self.at + _PREFIX.size + length
        return self.size if left and not self.at else None


class RecordBatch:
    """A fetched batch. base: its first offset; end: the one after its last, by its header; codec:
    of its compression, 0 without."""

    __slots__ = ("base", "body", "codec", "end", "magic", "raw")

    def __init__(self, raw: memoryview) -> None:
        self.raw = raw
        self.body: Buffer | None = None
        if len(raw) >= _HEADER.size and raw[_MAGIC_AT] == 2:
            self.base, _, _, self.magic, _, attributes, last, *_ = _HEADER.unpack_from(raw)
            self.end = self.base + last + 1
            self.codec = attributes & _CODECS
        else:
            self.magic = raw[_MAGIC_AT] if len(raw) > _MAGIC_AT else -1
            self.base = _PREFIX.unpack_from(raw)[0] if len(raw) >= _PREFIX.size else -1
            self.end = self.base + 1
            self.codec = raw[_MAGIC_AT + 1] & _CODECS if len(raw) >= _LEGACY_MIN_BYTES else 0

    def opened(self) -> Any:
        """aiokafka's form of the batch, not decompressed. Raises UnreadableError."""
        min_bytes = _HEADER.size if self.magic >= 2 else _LEGACY_MIN_BYTES
        if self.magic < 0 or len(self.raw) < min_bytes:
            raise UnreadableError("the batch is cut off")
        if self.magic > 2:
            raise UnreadableError(f"its format, {self.magic}, is not known")
        if self.end <= self.base:
            raise UnreadableError("its last offset is before its first")
        if self.magic == 2:
            batch: Any = DefaultRecordBatch(self.raw)
        else:
            batch = LegacyRecordBatch(self.raw, self.magic)
        if not batch.validate_crc():
            raise UnreadableError("its checksum is wrong: the batch was damaged")
        return batch

    def records(self, opened: Any, most: int) -> Iterator[Any]:
        """Its records, decoded by aiokafka. most: bytes that it may have decompressed. Raises
        UnreadableError, and aiokafka's errors."""
        if not self.codec:
            self.body = self.raw[_HEADER.size :]
            return iter(opened)
        if self.magic < 2:  # rare: decompressed here for its size, and again by aiokafka
            self._decompressed(self._legacy_value(), most)
            return iter(opened)
        self.body = self._decompressed(self.raw[_HEADER.size :], most)
        header = bytearray(self.raw[: _HEADER.size])
        header[_ATTRIBUTES_AT + 1] &= ~_CODECS
        return iter(DefaultRecordBatch(b"".join((header, self.body))))

    def one_by_one(self) -> Iterator[DecodedRecord | UnreadableRange] | None:
        """Its records, decoded by this module, which never raises; None if the batch cannot be
        divided into records."""
        if self.magic != 2 or self.body is None:
            return None
        return _one_by_one(self.raw, self.body)

    def _decompressed(self, data: Buffer, most: int) -> Buffer:
        try:
            return decompress(self.codec, data, most)
        except TooLargeError as error:
            raise UnreadableError(f"{error} ({variable('max_batch_bytes')})") from None
        except ValueError as error:
            raise UnreadableError(str(error)) from None

    def _legacy_value(self) -> Buffer:
        """The compressed messages inside a message."""
        at = _LEGACY_VALUE_AT[self.magic]
        [key] = struct.unpack_from(">i", self.raw, at)
        at += 4 + max(key, 0)
        [size] = struct.unpack_from(">i", self.raw, at)
        return self.raw[at + 4 : at + 4 + size]


def _one_by_one(header: Buffer, body: Buffer) -> Iterator[DecodedRecord | UnreadableRange]:
    base, _, _, _, _, attributes, last, first_ms, max_ms, *_, count = _HEADER.unpack_from(header)
    fixed_ms = max_ms if attributes & _LOG_APPEND_TIME else None
    left, offset, end = Cursor(body), base, base + last + 1
    for _ in range(max(count, 0)):
        begin, at = offset, left.at
        try:
            record = Cursor(left.take(left.varint()))
        except ValueError as error:
            yield UnreadableRange(begin, end, f"the batch is damaged ({error})", body[at:])
            return
        try:
            offset, read = _record(record, base, first_ms, fixed_ms)
            if not begin <= offset < end:
                raise ValueError(f"its offset would be {offset}")
            yield read
        except ValueError as error:
            offset = begin
            yield UnreadableRange(begin, begin + 1, f"the record is damaged ({error})", record.data)
        offset += 1
    if left.at < len(left.data) and offset < end:
        yield UnreadableRange(offset, end, "the batch holds more than its records", b"")


def _record(
    fields: "Cursor", base: int, first_ms: int, fixed_ms: int | None
) -> tuple[int, DecodedRecord]:
    """The record's offset, and the record. Raises ValueError."""
    fields.take(1)  # attributes: unused
    since = fields.varint()
    offset = base + fields.varint()
    key, value = fields.nullable(), fields.nullable()
    headers = list[tuple[str, bytes | None]]()
    for _ in range(fields.varint()):
        name = bytes(fields.take(fields.varint())).decode("utf-8", "replace")
        headers.append((name, fields.nullable()))
    if fields.at < len(fields.data):
        raise ValueError("it holds more than its fields")
    time_ms = first_ms + since if fixed_ms is None else fixed_ms
    return offset, DecodedRecord(offset, time_ms, int(fixed_ms is not None), key, value, headers)


class Cursor:
    """Reads bytes from front to end, and never past the end."""

    def __init__(self, data: Buffer) -> None:
        self.data = memoryview(data)
        self.at = 0

    def varint(self) -> int:
        """A signed number of up to 64 bits. Raises ValueError."""
        found = 0
        for shift in range(0, 70, 7):
            [byte] = self.take(1)
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (found >> 1) ^ -(found & 1)
        raise ValueError("a number is too long")

    def take(self, size: int) -> memoryview:
        """The next `size` bytes. Raises ValueError if there are fewer."""
        if not 0 <= size <= len(self.data) - self.at:
            raise ValueError("a length is wrong")
        self.at += size
        return self.data[self.at - size : self.at]

    def nullable(self) -> bytes | None:
        """A length and that many bytes; None for the length -1. Raises ValueError."""
        size = self.varint()
        return None if size == -1 else bytes(self.take(size))
