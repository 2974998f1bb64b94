"""The wire format: encodes and decodes maps, builds dead letters, checks names and questions.

Bytes of an event -> a checked value, or BadEvent with the reason. Maps are JSON or msgpack; the
first byte tells which.
"""

import base64
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgpack

from stream_app.errors import BadEvent
from stream_app.formats.text import encodable, is_json, json_of, msgpack_of

STREAM_BYTES = 256
QUESTION_CHARS = 65_536
KEPT_BYTES = 65_536
"""Bytes of an event's key, and of its value, in its dead letter, which must fit its topic."""
KEPT_HEADER_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream's text; `time_ms` in milliseconds since the epoch."""

    stream: str
    text: str
    time_ms: int


def encode(fields: dict[str, Any], as_json: bool = True) -> bytes:
    """A map as JSON, or as msgpack for a client that uses msgpack. Numbers that are not finite
    become null, since JSON does not have them."""
    if not as_json:
        return bytes(msgpack.packb(_finite(fields), use_bin_type=True))
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(fields), ensure_ascii=False).encode()


def decode(value: bytes) -> dict[str, Any]:
    """A map of JSON or msgpack. Raises BadEvent."""
    fields = json_of(value) if is_json(value) else msgpack_of(value)
    if not isinstance(fields, dict):
        raise BadEvent("the value is no map")
    return fields


def dead_letter(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    reason: str,
    headers: Iterable[tuple[Any, bytes | None]] = (),
) -> bytes:
    """A dead letter as JSON: the event's origin, the reason, and its bytes in base64. With
    `truncated` some bytes are left out; their full sizes are always there."""
    key, value = key or b"", value or b""
    kept, is_whole = _kept_headers(headers)
    letter: dict[str, Any] = {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "reason": _writable(reason)[:STREAM_BYTES],
        "key": base64.b64encode(key[:KEPT_BYTES]).decode(),
        "value": base64.b64encode(value[:KEPT_BYTES]).decode(),
        "key_bytes": len(key),
        "value_bytes": len(value),
        "headers": kept,
    }
    if len(key) > KEPT_BYTES or len(value) > KEPT_BYTES or not is_whole:
        letter["truncated"] = True
    return encode(letter)


def _kept_headers(headers: Iterable[tuple[Any, bytes | None]]) -> tuple[list[Any], bool]:
    """The first headers as pairs of name and value in base64, up to KEPT_HEADER_BYTES, and whether
    these are all."""
    kept, bytes_left = list[Any](), KEPT_HEADER_BYTES
    for name, value in headers:
        text = _writable(name)
        bytes_left -= len(text.encode()) + len(value or b"") + 16
        if bytes_left < 0:
            return kept, False
        kept.append([text, None if value is None else base64.b64encode(value).decode()])
    return kept, True


def _writable(text: str | bytes) -> str:
    """Any text, with escapes for what UTF-8 cannot hold."""
    if isinstance(text, bytes):
        return text.decode(errors="backslashreplace")
    return text.encode(errors="backslashreplace").decode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sized(value: bytes | None, limit: int) -> bytes:
    """The value. Raises BadEvent if it is empty or larger than the limit."""
    if not value:
        raise BadEvent("the value is empty")
    if len(value) > limit:
        raise BadEvent(
            f"the value has {len(value)} bytes, more than the {limit} allowed "
            "(XL3M_MAX_EVENT_BYTES)"
        )
    return value


def stream_name(stream: Any) -> str:
    """A stream's name, checked. Raises BadEvent."""
    if not isinstance(stream, str) or not stream:
        raise BadEvent("no stream: give the event a key, or a field 'stream'")
    encodable(stream, "the stream's name")
    if len(stream.encode()) > STREAM_BYTES:
        size = len(stream.encode())
        raise BadEvent(f"the stream's name has {size} bytes, more than the {STREAM_BYTES} allowed")
    return stream


def question_text(question: str | None) -> str | None:
    """A question without surrounding whitespace, checked. Raises BadEvent."""
    if question is not None and not question.strip():
        raise BadEvent("the question is empty")
    if question is not None and len(question) > QUESTION_CHARS:
        raise BadEvent(
            f"the question has {len(question)} characters, more than the {QUESTION_CHARS} allowed"
        )
    return question.strip() if question is not None else None
