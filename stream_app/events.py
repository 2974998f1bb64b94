"""The wire format: chunk of text, question, query, answer, dead letter.

Bytes of an event -> a checked value, or BadEvent with the reason. Maps may be JSON or
msgpack; which it is shows in the first byte. Knows no broker and no store.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

import msgpack

from stream_app.errors import BadEvent
from stream_app.settings import MAX_DEADLINE

STREAM_BYTES = 256
QUESTION_CHARS = 65_536
# Of a dead event's key and value this much is kept: a dead letter must always fit its topic.
KEPT_BYTES = 65_536
# First bytes of a msgpack map of up to 15 entries. No UTF-8 text begins with one of these.
MSGPACK_MAP = range(0x80, 0x90)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream's text; `time_ms` in milliseconds since the epoch."""

    stream: str
    text: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Question:
    """Sets a stream's current question, adds one (`add`), or ends them all (None)."""

    stream: str
    question: str | None
    add: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """Wants an answer now. No question: the stream's current one. deadline in seconds."""

    id: str
    stream: str
    question: str | None = None
    deadline: float | None = None
    as_json: bool = True


def decode_question(key: bytes | None, value: bytes | None, limit: int) -> Question:
    """An event of the questions topic: a map, plain text, or nothing to end the questions."""
    stream = _text(key, "key") if key else None
    if not value:
        return Question(stream_name(stream), None)
    fields = _map_or_text(_sized(value, limit), "question")
    if "question" not in fields:  # a typing error must not end the questions
        raise BadEvent("field 'question' is missing")
    question = _field(fields, "question", str, None)
    add = _field(fields, "add", bool, False)
    return Question(stream_name(fields.get("stream", stream)), question_text(question), add)


def decode_query(key: bytes | None, value: bytes | None, limit: int, id: str = "") -> Query:
    """An event of the queries topic, or a message on the pub/sub door. id is the fallback."""
    value = _sized(value, limit)
    fields = _map_or_text(value, "question")
    stream = fields.get("stream", _text(key, "key") if key else None)
    deadline = fields.get("deadline")
    if deadline is not None and not (_number(deadline) and 0 <= deadline <= MAX_DEADLINE):
        raise BadEvent(f"field 'deadline' must be seconds from 0 to {MAX_DEADLINE:.0f}")
    query_id = _field(fields, "id", str, id)
    if not query_id or len(query_id.encode()) > STREAM_BYTES:
        raise BadEvent(f"field 'id' must be a text of 1 to {STREAM_BYTES} bytes")
    question = question_text(_field(fields, "question", str, None))
    return Query(query_id, stream_name(stream), question, deadline, is_json(value))


def id_of(value: bytes, limit: int) -> str:
    """The id of a query that is otherwise of no use, or nothing if it can't be made out."""
    try:
        return str(_field(_map(_sized(value, limit)), "id", str, ""))
    except BadEvent:
        return ""


def is_json(value: bytes) -> bool:
    """Whether who sent it wants JSON back: all do but those who send msgpack."""
    return not value or value[0] not in MSGPACK_MAP


def encode(fields: dict[str, Any], as_json: bool = True) -> bytes:
    """A map as bytes: JSON, or msgpack for those who asked in msgpack."""
    if as_json:
        return json.dumps(fields, ensure_ascii=False).encode()
    return bytes(msgpack.packb(fields, use_bin_type=True))


def decode(value: bytes) -> dict[str, Any]:
    """A map in either form. Raises BadEvent."""
    return _map(value)


def dead_letter(
    topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None, reason: str
) -> bytes:
    """What is known of an event that could not be used; its bytes in base64."""
    return encode(
        {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "reason": reason[:STREAM_BYTES],
            "key": base64.b64encode((key or b"")[:KEPT_BYTES]).decode(),
            "value": base64.b64encode((value or b"")[:KEPT_BYTES]).decode(),
        }
    )


def _sized(value: bytes | None, limit: int) -> bytes:
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


def _map(value: bytes) -> dict[str, Any]:
    """The map in JSON or msgpack."""
    form = "json" if is_json(value) else "msgpack"
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


def _map_or_text(value: bytes, field: str) -> dict[str, Any]:
    """A map, or plain text as the one field that matters."""
    if not is_json(value) or value[:1] == b"{":
        return _map(value)
    return {field: _text(value, "value").strip()}


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
