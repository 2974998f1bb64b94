"""Framing: where a value names its schema, in the wire format of Confluent's schema registry.

A byte 0 and the schema's id in four bytes go before what was serialised; newer producers name it
by a GUID in a header instead. Knows no registry and no schema.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stream_app.errors import BadEvent
from stream_app.formats.text import is_json, json_of

PREFIX_BYTES = 5
LARGEST_ID = 2**31 - 1
# Where no registry is set a text might begin with a zero byte, too: no registry is near this id.
LIKELY_ID = 2**24
GUID_MAGIC = 1
HEADERS = {"value": "__value_schema_id", "key": "__key_schema_id"}

SchemaRef = int | str
"""A schema's id, or its GUID."""


@dataclass(frozen=True, slots=True)
class Framed:
    """What was serialised, and by which schema. indexes: the bytes in which Protobuf names the
    message, before the payload or, where a header names the schema, in the header."""

    schema: SchemaRef
    payload: bytes
    indexes: bytes | None = None


def framed(
    value: bytes | None, headers: Iterable[tuple[Any, bytes | None]] = (), what: str = "value"
) -> Framed | None:
    """The value or key taken apart; None if it names no schema."""
    if not value:
        return None
    for name, said in headers:
        if name in (HEADERS[what], HEADERS[what].encode()) and said:
            return _by_header(said, value)
    if value[0] != 0 or len(value) < PREFIX_BYTES:
        return None
    schema = int.from_bytes(value[1:PREFIX_BYTES])
    return Framed(schema, value[PREFIX_BYTES:]) if schema else None


def _by_header(said: bytes, value: bytes) -> Framed | None:
    if said[0] == GUID_MAGIC and len(said) >= 17:
        return Framed(str(uuid.UUID(bytes=said[1:17])), value, said[17:])
    if said[0] == 0 and len(said) >= PREFIX_BYTES:
        return Framed(int.from_bytes(said[1:PREFIX_BYTES]), value, said[PREFIX_BYTES:])
    return None


def is_likely(frame: Framed | None) -> bool:
    """Whether the bytes are more likely framed than a text that begins with a zero byte."""
    if frame is None or isinstance(frame.schema, str):
        return frame is not None
    return 0 < frame.schema < LIKELY_ID and not _is_utf_32(frame)


def _is_utf_32(frame: Framed) -> bool:
    """JSON in big-endian UTF-32 begins with three zero bytes and a bracket, then three more."""
    return frame.schema in (ord("{") << 8, ord("[") << 8) and frame.payload[:2] == b"\0\0"


def unframed(frame: Framed, what: str = "value") -> bytes:
    """Without a registry: the JSON behind JSON Schema's five bytes, which needs none. Raises
    BadEvent that says what to set for the others."""
    if is_json(frame.payload) and frame.payload.lstrip()[:1] in (b"{", b"["):
        try:
            json_of(frame.payload)
            return frame.payload
        except BadEvent:  # then it is no JSON
            pass
    more = "; if keys are binary, set XL3M_KEY_FORMAT" if what == "key" else ""
    raise BadEvent(
        f"the {what} begins with the magic byte of a schema registry, schema id {frame.schema}: "
        f"set XL3M_SCHEMA_REGISTRY and install `xl3m-stream[registry]`{more}"
    )
