"""Framing: the reference to a schema in a value, in Confluent's wire format.

A zero byte and the schema's id in four bytes precede the payload; newer producers put a GUID into a
header instead.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stream_app.errors import BadEvent
from stream_app.formats.text import is_json, json_of

PREFIX_BYTES = 5
LARGEST_ID = 2**31 - 1
# Without a registry a zero byte can also begin a text; no registry has ids beyond this one.
LIKELY_ID = 2**24
GUID_MAGIC = 1
HEADERS = {"value": "__value_schema_id", "key": "__key_schema_id"}

SchemaRef = int | str
"""The id of a schema, or its GUID."""


@dataclass(frozen=True, slots=True)
class Framed:
    """A payload and its schema. indexes: for Protobuf, the bytes that select the message type if
    they come from a header; else they begin the payload."""

    schema: SchemaRef
    payload: bytes
    indexes: bytes | None = None


def framed(
    value: bytes | None, headers: Iterable[tuple[Any, bytes | None]] = (), what: str = "value"
) -> Framed | None:
    """The parts of a value or key; None if it has no schema reference."""
    if not value:
        return None
    for name, reference in headers:
        if name in (HEADERS[what], HEADERS[what].encode()) and reference:
            return _from_header(reference, value)
    if value[0] != 0 or len(value) < PREFIX_BYTES:
        return None
    schema = int.from_bytes(value[1:PREFIX_BYTES])
    return Framed(schema, value[PREFIX_BYTES:]) if schema else None


def _from_header(reference: bytes, value: bytes) -> Framed | None:
    if reference[0] == GUID_MAGIC and len(reference) >= 17:
        return Framed(str(uuid.UUID(bytes=reference[1:17])), value, reference[17:])
    if reference[0] == 0 and len(reference) >= PREFIX_BYTES:
        schema = int.from_bytes(reference[1:PREFIX_BYTES])
        return Framed(schema, value, reference[PREFIX_BYTES:])
    return None


def is_likely(frame: Framed | None) -> bool:
    """Whether this is probably framed, not a text that begins with a zero byte."""
    if frame is None or isinstance(frame.schema, str):
        return frame is not None
    return 0 < frame.schema < LIKELY_ID and not _is_utf_32(frame)


def _is_utf_32(frame: Framed) -> bool:
    """Whether this is JSON in big-endian UTF-32: three zero bytes, a bracket, three zero bytes."""
    return frame.schema in (ord("{") << 8, ord("[") << 8) and frame.payload[:2] == b"\0\0"


def unframed(frame: Framed, what: str = "value") -> bytes:
    """The payload where no registry is configured: JSON needs none. Raises BadEvent for other
    payloads, with the settings to make."""
    if is_json(frame.payload) and frame.payload.lstrip()[:1] in (b"{", b"["):
        try:
            json_of(frame.payload)
            return frame.payload
        except BadEvent:  # not JSON
            pass
    more = "; if keys are binary, set XL3M_KEY_FORMAT" if what == "key" else ""
    raise BadEvent(
        f"the {what} begins with the magic byte of a schema registry, schema id {frame.schema}: "
        f"set XL3M_SCHEMA_REGISTRY and install `xl3m-stream[registry]`{more}"
    )
