"""Raw record batches (format version 2), built byte by byte, and sent to Kafka unchecked.

A normal producer would not write them, but any client with write access to a topic can.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c, encode_varint

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
COMPRESSED = ("gzip", "snappy", "lz4", "zstd")
_COMPRESS: dict[int, Any] = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}
CONTROL, TRANSACTIONAL, LOG_APPEND_TIME = 0x20, 0x10, 0x08


@dataclass(frozen=True)
class Raw:
    """A record. extra: invalid bytes after its fields; delta: a false offset delta."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    extra: bytes = b""
    delta: int | None = None

    def encoded(self, index: int) -> bytes:
        """The record's bytes at that index of a batch."""
        out = bytearray(b"\0")
        number(out, 0)
        number(out, index if self.delta is None else self.delta)
        for part in (self.key, self.value):
            sized(out, part)
        number(out, len(self.headers))
        for name, value in self.headers:
            sized(out, name)
            sized(out, value)
        out += self.extra
        whole = bytearray()
        sized(whole, out)
        return bytes(whole)


def number(out: bytearray, value: int) -> None:
    """Append a varint."""
    encode_varint(value, out.append)


def sized(out: bytearray, part: "bytes | bytearray | None") -> None:
    """Append the length and the bytes; None is -1."""
    number(out, -1 if part is None else len(part))
    out += part or b""


def batch(
    records: Sequence[Raw],
    codec: int = 0,
    base: int = 0,
    *,
    attributes: int = 0,
    producer: int = -1,
    body: bytes | None = None,
    count: int | None = None,
    time_ms: int = 1_700_000_000_000,
) -> bytes:
    """The records as a batch. body: replaces the records; count: the number the header claims."""
    if body is None:
        body = b"".join(record.encoded(i) for i, record in enumerate(records))
    if codec in _COMPRESS:
        body = bytes(_COMPRESS[codec](body))
    count = len(records) if count is None else count
    checked = struct.pack(
        ">hiqqqhii", codec | attributes, count - 1, time_ms, time_ms, producer,
        0 if producer >= 0 else -1, 0 if producer >= 0 else -1, count,
    ) + body  # fmt: skip
    head = struct.pack(">iBI", -1, 2, calc_crc32c(checked))
    return struct.pack(">qi", base, len(head) + len(checked)) + head + checked


async def produce(producer: AIOKafkaProducer, topic: str, data: bytes, partition: int = 0) -> None:
    """Send the batch unchanged. Raises AssertionError if the broker rejects it."""
    await producer.partitions_for(topic)
    node = producer.client.cluster.leader_for_partition(TopicPartition(topic, partition))
    request = ProduceRequest(None, -1, 30_000, [(topic, [(partition, data)])])
    response = await producer.client.send(node, request)
    assert response.topics[0][1][0][1] == 0, response
