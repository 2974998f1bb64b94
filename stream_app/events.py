"""The wire format: token, answer, dead letter.

Bytes of an event -> a checked value, or BadEvent with the reason. Maps may be JSON or
msgpack; which it is shows in the first byte. Knows no broker and no store.
"""

import base64
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgpack

from stream_app.errors import BadEvent
from stream_app.formats.text import is_json
from stream_app.settings import Settings

STREAM_BYTES = 256
QUESTION_CHARS = 65_536
# Of a dead event's key and value this much is kept: a dead letter must always fit its topic.
KEPT_BYTES = 65_536
KEPT_HEADER_BYTES = 16_384
# Those of larger maps. Text may begin with one, so they are maps only where text is not expected.
MSGPACK_LARGE_MAPS = (b"\xde", b"\xdf")

Decoder = Callable[[list[int]], str]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream's text; `time_ms` in milliseconds since the epoch."""

    stream: str
    text: str
    time_ms: int


def decode_chunk(
    key: bytes | None,
    value: bytes | None,
    *,
    source: str,
    time_ms: int,
    settings: Settings,
    decode_ids: Decoder,
) -> Chunk:
    """An event of the tokens topic. source names the stream if neither key nor field does."""
    value = sized(value, settings.max_event_bytes)
    stream = _text(key, "key") if key else source
    if settings.format == "lines":
        text = _text(value, "value")
        return Chunk(stream_name(stream), text if text.endswith("\n") else text + "\n", time_ms)
    fields = _map(value, want="json" if settings.format == "json" else "msgpack")
    time_ms = _time(fields.get(settings.time_field or "time"), time_ms)
    if settings.format == "json":
        if settings.key_field:
            stream = _field(fields, settings.key_field, str)
        text = _field(fields, settings.text_field or "text", str)
        return Chunk(stream_name(stream), text if text.endswith("\n") else text + "\n", time_ms)
    if "ids" in fields:
        return Chunk(stream_name(stream), _decode_ids(fields["ids"], decode_ids), time_ms)
    return Chunk(stream_name(stream), _field(fields, "text", str), time_ms)


def encode(fields: dict[str, Any], as_json: bool = True) -> bytes:
    """A map as bytes: JSON, or msgpack for those who asked in msgpack. What is no finite number is
    null: JSON has no other word for it."""
    if not as_json:
        return bytes(msgpack.packb(_finite(fields), use_bin_type=True))
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(fields), ensure_ascii=False).encode()


def decode(value: bytes) -> dict[str, Any]:
    """A map in either form. Raises BadEvent."""
    return _map(value)


def dead_letter(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    reason: str,
    headers: Iterable[tuple[Any, bytes | None]] = (),
) -> bytes:
    """What is known of an event that could not be used; its bytes in base64. `truncated` says that
    not all of them are there; their full sizes always are."""
    key, value = key or b"", value or b""
    kept, is_whole = _kept_headers(headers)
    letter: dict[str, Any] = {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "reason": _writable(reason[:STREAM_BYTES]),
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
    """The headers as pairs of name and value in base64, as long as there is room for them, and
    whether that is all of them."""
    kept, room = list[Any](), KEPT_HEADER_BYTES
    for name, value in headers:
        text = _writable(name)
        room -= len(text.encode()) + len(value or b"") + 16
        if room < 0:
            return kept, False
        kept.append([text, None if value is None else base64.b64encode(value).decode()])
    return kept, True


def _writable(text: str | bytes) -> str:
    """Any text as one that UTF-8 can hold."""
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
    """The value, if it is one and no larger than allowed. Raises BadEvent."""
    if not value:
        raise BadEvent("the value is empty")
    if len(value) > limit:
        raise BadEvent(f"the value has {len(value)} bytes, more than the {limit} allowed")
    return value


def _text(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BadEvent(f"the {what} is not UTF-8: byte {error.start} is wrong") from None


def _map(value: bytes, want: str | None = None) -> dict[str, Any]:
    """The map in JSON or msgpack; `want` names the only form allowed."""
    form = "json" if is_json(value) else "msgpack"
    if want == "msgpack" and value[:1] in MSGPACK_LARGE_MAPS:
        form = "msgpack"
    if want not in (None, form):
        raise BadEvent(f"the value is not a {want} map")
    try:
        if form == "msgpack":
            fields = msgpack.unpackb(value, raw=False, strict_map_key=True)
        else:
            fields = json.loads(value)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise BadEvent(f"the value is not {form}: {error}") from None
    if not isinstance(fields, dict):
        raise BadEvent(f"the value is {form}, but not a map")
    return fields


_REQUIRED: Any = object()


def _field(fields: dict[str, Any], name: str, kind: type, default: Any = _REQUIRED) -> Any:
    value = fields.get(name, default)
    if value is _REQUIRED:
        raise BadEvent(f"field {name!r} is missing")
    if value is not default and not isinstance(value, kind):
        raise BadEvent(f"field {name!r} must be {kind.__name__}, not {type(value).__name__}")
    if isinstance(value, str):
        _encodable(value, f"field {name!r}")
    return value


def _encodable(text: str, what: str) -> None:
    """JSON can spell half of a surrogate pair, which no UTF-8 text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadEvent(f"{what} holds a lone surrogate, which is not text") from None


def stream_name(stream: Any) -> str:
    """The name, if a stream may be called so. Raises BadEvent."""
    if not isinstance(stream, str) or not stream:
        raise BadEvent("no stream: give the event a key, or a field 'stream'")
    _encodable(stream, "the stream's name")
    if len(stream.encode()) > STREAM_BYTES:
        size = len(stream.encode())
        raise BadEvent(f"the stream's name has {size} bytes, more than the {STREAM_BYTES} allowed")
    return stream


def question_text(question: str | None) -> str | None:
    """The question, if it may be asked, without space around it. Raises BadEvent."""
    if question is not None and not question.strip():
        raise BadEvent("the question is empty")
    if question is not None and len(question) > QUESTION_CHARS:
        raise BadEvent(
            f"the question has {len(question)} characters, more than the {QUESTION_CHARS} allowed"
        )
    return question.strip() if question is not None else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _time(value: Any, default: int) -> int:
    """A time in ISO 8601, or seconds or milliseconds since the epoch, told apart by size (the
    year 5138 in seconds)."""
    if value is None:
        return default
    if isinstance(value, str):
        return _iso(value)
    if not _number(value) or not 0 <= value < 1e14:
        raise BadEvent("the time field must be seconds or milliseconds since the epoch")
    return int(value if value >= 1e11 else value * 1000)


def _iso(text: str) -> int:
    """Milliseconds since the epoch; a time without a zone is UTC."""
    try:
        time = datetime.fromisoformat(text)
        time_ms = int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise BadEvent("the time field is neither a number nor ISO 8601") from None
    if time_ms < 0:  # as for numbers
        raise BadEvent("the time field is before 1970")
    return time_ms


def _decode_ids(ids: Any, decode_ids: Decoder) -> str:
    """The text of token ids, which must be whole characters."""
    whole = isinstance(ids, list) and all(isinstance(i, int) and 0 <= i < 2**31 for i in ids)
    if not whole or not ids:
        raise BadEvent("field 'ids' must be a list of token ids")
    try:
        text = decode_ids(ids)
    except (IndexError, OverflowError, TypeError, ValueError) as error:
        raise BadEvent(f"field 'ids' cannot be decoded: {error}") from None
    if "\N{REPLACEMENT CHARACTER}" in (text[:1], text[-1:]):
        raise BadEvent("field 'ids' begins or ends inside a character: send whole characters")
    return text
