"""Fuzz targets: values and keys in the wire format of a schema registry, as a worker decodes them.

The schemas are already loaded, as after the preparation of a batch: Avro (one of them recursive),
Protobuf with nested messages, and JSON Schema, with ids from 1; id 9 is unknown.
"""

import asyncio
import base64
import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from confluent_kafka.schema_registry.error import SchemaRegistryError

from stream_app.formats.framing import HEADERS
from stream_app.ingest.decoder import TokenDecoder
from stream_app.settings import Settings
from tests.support.producers import HOST, LOG, messages

PAIR = {
    "type": "record",
    "name": "Pair",
    "fields": [{"name": "text", "type": "string"}, {"name": "time", "type": ["null", "long"]}],
}
LIST = {
    "type": "record",
    "name": "List",
    "fields": [{"name": "text", "type": "string"}, {"name": "next", "type": ["null", "List"]}],
}
UNKNOWN = 9


@dataclass
class _Schema:
    """A schema as the registry's client returns it."""

    schema_str: str
    schema_type: str = "AVRO"
    references: list[Any] = field(default_factory=list)


@dataclass
class _Reference:
    name: str
    subject: str
    version: int


@dataclass
class _Version:
    schema: _Schema


class _Client:
    """A client of a registry, without a network."""

    def __init__(self) -> None:
        files = {f.name: f for f in (m.DESCRIPTOR.file for m in messages().values())}
        self.files = {
            name: _Schema(base64.b64encode(file.serialized_pb).decode(), "PROTOBUF")
            for name, file in files.items()
        }
        event, common = self.files["acme/event.proto"], "acme/common.proto"
        event.references.append(_Reference(common, common, 1))
        host = _Reference("com.acme.Host", "host", 1)
        self.schemas = {
            1: _Schema(json.dumps(PAIR)),
            2: _Schema(json.dumps(LIST)),
            3: _Schema(json.dumps(LOG), references=[host]),
            4: _Schema('"string"'),
            5: event,
            6: _Schema("{}", "JSON"),
        }

    def get_schema(self, id: int, fmt: str | None = None) -> _Schema:
        if id == UNKNOWN:
            raise SchemaRegistryError(404, 40403, "not found")
        return self.schemas[id]

    def get_version(self, subject: str, *_: Any) -> _Version:
        found = self.files.get(subject)
        return _Version(found or _Schema(json.dumps(HOST)))

    def clear_caches(self) -> None:
        """There are no caches."""


@lru_cache
def decoder(format: str) -> TokenDecoder:
    """A decoder with all schemas loaded, without a network."""
    made = TokenDecoder(Settings(input_format=format, max_event_bytes=4096), lambda ids: "")
    registry = made.registry
    registry.client, registry.is_asked = _Client(), True
    values = [b"\0" + id.to_bytes(4) + b"x" for id in (*range(1, 7), UNKNOWN)]
    asyncio.run(registry.prepare([(None, value, ()) for value in values]))
    assert len(registry.readers) == 6 and [*registry.unknown] == [UNKNOWN]
    return made


KEY = b"\0" + (4).to_bytes(4) + b"\x08text"


def framed_value(data: bytes) -> None:
    """A value; its first byte chooses the schema."""
    _take(decoder("json"), KEY, _framed(data), ())


def framed_line(data: bytes) -> None:
    """A value where events are lines of text; its first byte chooses the schema."""
    _take(decoder("lines"), KEY, _framed(data), ())


def framed_key(data: bytes) -> None:
    """A key."""
    _take(decoder("json"), _framed(data), b'{"text": "x"}', ())


def headed_value(data: bytes) -> None:
    """A value whose schema is named by a header."""
    size = data[0] % 32 if data else 0
    _take(decoder("json"), b"key", data[1 + size :], [(HEADERS["value"], data[1 : 1 + size])])


@lru_cache
def plain_decoder() -> TokenDecoder:
    """A decoder without a registry."""
    return TokenDecoder(Settings(input_format="lines", max_event_bytes=4096), lambda ids: "")


def without_registry(data: bytes) -> None:
    """Any value and key without a registry, in the wire format or not."""
    _take(plain_decoder(), data[:9], b"\0" + data, ())


def _framed(data: bytes) -> bytes:
    return b"\0" + (data[0] % 10 if data else 0).to_bytes(4) + data[1:]


def _take(made: TokenDecoder, key: bytes, value: bytes, headers: Any) -> None:
    chunks, reason = made.decode(key, value, source="t/0", time_ms=1000, headers=headers)
    reason.encode()
    for chunk in chunks:
        assert 1 <= len(chunk.stream.encode()) <= 256
        assert chunk.text.encode() and 0 <= chunk.time_ms < 10**15


def _seeds() -> list[bytes]:
    outer = messages()["acme.Outer"](message="of protobuf", count=7)
    outer.inner.raw = b"\xff"
    payloads = {
        1: [b"\x0apump!\x00", b"\x02x\x02\x80\x80\x01"],
        2: [b"\x02a\x02\x02b\x02\x02c\x00", b"\x00\x02" * 300, b"\x02a" + b"\x80" * 300],
        3: [b"\x02x\x02\x02\x02h\x02\x02\x07\x06abc\x02\x02k\x02v\x00", b"\x02x\xfe" + b"\xff" * 8],
        4: [b"\x08text", b"\x02\xff"],
        5: [b"\x02\x02" + outer.SerializeToString(), b"\x00\x08\x07", b"\x04\x02\x02\x0a\x01x"],
        6: [b'{"text": "x", "time": 1}', b'["a"]', b'"\\ud800"', b"{"],
        UNKNOWN: [b"x"],
    }
    return [bytes([id]) + payload for id, each in payloads.items() for payload in each]


SEEDS = _seeds()
assert len(decoder("json").registry.readers) == 6  # without schemas all inputs would be refused
# The header of a Protobuf value has the message's indexes, too.
HEADED = [bytes([6]) + b"\0" + s[:1].rjust(4, b"\0") + b"\0" + s[1:] for s in SEEDS]
HEADED += [bytes([17]) + b"\1" * 17 + b"\x00\x08\x07"]
