"""Requests: decodes questions and queries from topics and pub/sub.

Bytes -> a checked Question or Query, or BadEvent with the reason. `sender_of` reads what it can
from a bad request, so that its sender gets an error.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stream_app.errors import BadEvent
from stream_app.events import STREAM_BYTES, question_text, sized, stream_name
from stream_app.formats.text import (
    BOM,
    encodable,
    is_empty,
    is_json,
    json_of,
    msgpack_of,
    text_of,
)
from stream_app.formats.values import is_number
from stream_app.settings import MAX_DEADLINE

QUESTION_FIELDS = ("stream", "question", "add")
QUERY_FIELDS = ("id", "stream", "question", "deadline", "early")
MAX_NAMED = 3
"""Unknown fields that an error names."""
NAME_CHARS = 40
"""Characters of each."""
# First characters of JSON that is not a map; plain text may begin with them, too.
_MAYBE_JSON = tuple('["-0123456789tfn')
_KINDS = {list: "a list", bool: "a boolean", type(None): "null", dict: "a map"}


@dataclass(frozen=True, slots=True)
class Question:
    """Sets a stream's standing question, adds one (`add`), or ends all of them (None)."""

    stream: str
    question: str | None
    add: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """Requests an answer now. question: None for the stream's standing question; deadline: in
    seconds; as_json: whether the answer is JSON, else msgpack; early: whether revisions are wanted
    while the stream is scored, through pub/sub only."""

    id: str
    stream: str
    question: str | None = None
    deadline: float | None = None
    as_json: bool = True
    early: bool = True


@dataclass(frozen=True, slots=True)
class Sender:
    """What a bad request tells about its sender; a field is empty if it cannot be read."""

    id: str = ""
    stream: str = ""
    question: str | None = None


def decode_question(
    key: bytes | None, value: bytes | None, limit: int, encoding: str = "strict"
) -> Question:
    """Decode an event of the questions topic: a map, plain text, or nothing to end the questions.
    limit: bytes of the value. Raises BadEvent."""

    if value is None or is_empty(value):
        return Question(_stream({}, key), None)
    fields = _fields(value, limit, encoding)
    unknown = _unknown(fields, QUESTION_FIELDS, "a question")
    if "question" not in fields:  # a misspelt field must not end the questions
        raise BadEvent("; ".join(filter(None, ["field 'question' is missing", unknown])))
    if unknown:
        raise BadEvent(unknown)
    add = _flag(fields, "add", False)
    return Question(_stream(fields, key), _question(fields, encoding), add)


def decode_query(
    key: bytes | None,
    value: bytes | None,
    limit: int,
    id: str = "",
    encoding: str = "strict",
) -> Query:
    """Decode an event of the queries topic or a message on pub/sub. id: used if the value has none;
    limit: bytes of the value. Raises BadEvent."""

    if value is None or is_empty(value):
        raise BadEvent("the value is empty")
    fields = _fields(value, limit, encoding)
    if unknown := _unknown(fields, QUERY_FIELDS, "a query"):
        raise BadEvent(unknown)
    query_id = _id(fields["id"]) if "id" in fields else id
    if not query_id:
        raise BadEvent("field 'id' is missing: the answer is sent under it")
    deadline = fields.get("deadline")
    if deadline is not None and not (is_number(deadline) and 0 <= deadline <= MAX_DEADLINE):
        raise BadEvent(f"field 'deadline' must be seconds from 0 to {MAX_DEADLINE:.0f}")
    stream, question = _stream(fields, key), _question(fields, encoding)
    early = _flag(fields, "early", True)
    return Query(query_id, stream, question, deadline, is_json(value), early)


def sender_of(key: bytes | None, value: bytes | None, limit: int) -> Sender:
    """The sender of a bad request, as far as it can be read."""
    try:
        fields = _fields(value or b"", limit, "replace")
    except BadEvent:
        fields = {}
    found: dict[str, Any] = {}
    readers: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("id", lambda: _id(fields.get("id"))),
        ("stream", lambda: _stream(fields, key)),
        ("question", lambda: _question(fields, "replace")),
    )
    for name, read in readers:
        try:
            found[name] = read()
        except BadEvent:
            continue
    return Sender(**found)


def id_of(value: bytes, limit: int) -> str:
    """The id of a bad query; empty if it cannot be read."""
    return sender_of(None, value, limit).id


def _fields(value: bytes, limit: int, encoding: str) -> dict[str, Any]:
    """The fields of a map, or plain text as the field `question`."""
    sized(value, limit)
    if not is_json(value):
        return _a_map(msgpack_of(value, encoding), "msgpack")
    if value.lstrip(b" \t\r\n\xef\xbb\xbf").startswith(b"{"):
        return _a_map(json_of(value, encoding), "JSON")
    text = text_of(value, "value", encoding).strip().strip(BOM).strip()
    return {"question": _plain(text)}


def _a_map(value: Any, form: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadEvent(f"the value is {form}, but {_kind(value)} and not a map")
    return value


def _plain(text: str) -> str:
    """The question in a text that is no map: a JSON string is unquoted, other JSON is rejected."""
    if not text.startswith(_MAYBE_JSON):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, str):
        raise BadEvent(
            f"the value is JSON, but {_kind(value)}: send a map with a field 'question', or the "
            "question as plain text"
        )
    return value


def _unknown(fields: dict[str, Any], known: Sequence[str], what: str) -> str:
    """The error for unknown fields; empty without any. If they were ignored, the answer could be
    to another question."""
    unknown = [name for name in fields if name not in known]
    if not unknown:
        return ""
    named = ", ".join(_named(name) for name in unknown[:MAX_NAMED])
    more = f" and {len(unknown) - MAX_NAMED} more" if len(unknown) > MAX_NAMED else ""
    s = "s" if len(unknown) > 1 else ""
    return f"unknown field{s} {named}{more}: {what} has {', '.join(known)}"


def _named(name: str | bytes) -> str:
    text = name.decode(errors="backslashreplace") if isinstance(name, bytes) else name
    return repr(text if len(text) <= NAME_CHARS else text[:NAME_CHARS] + "...")


def _id(value: Any) -> str:
    """A query's id; a number is taken as text. Raises BadEvent."""
    if is_number(value) and (isinstance(value, int) or math.isfinite(value)):
        value = str(value)
    if not isinstance(value, str):
        raise BadEvent(f"field 'id' must be a text or a number, not {_kind(value)}")
    encodable(value, "field 'id'")
    if not value or len(value.encode()) > STREAM_BYTES:
        raise BadEvent(f"field 'id' must be a text of 1 to {STREAM_BYTES} bytes")
    return value


def _stream(fields: dict[str, Any], key: bytes | None) -> str:
    """The stream's name in a field, else in the event's key. Raises BadEvent."""
    if "stream" not in fields:
        return stream_name(_key(key) if key else None)
    stream = fields["stream"]
    if isinstance(stream, list):
        raise BadEvent("field 'stream' must not be a list: ask each stream by itself")
    if not isinstance(stream, str) or not stream:
        found = "empty" if stream == "" else _kind(stream)
        raise BadEvent(f"no stream: field 'stream' must be a stream's name, and is {found}")
    return stream_name(stream)


def _key(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        reason = f"the key is not UTF-8: byte {error.start} is wrong"
        raise BadEvent(f"{reason}; name the stream in a field 'stream'") from None


def _question(fields: dict[str, Any], encoding: str) -> str | None:
    question = fields.get("question")
    if question is None:
        return None
    if not isinstance(question, str):
        raise BadEvent(f"field 'question' must be str, not {_kind(question)}")
    return question_text(encodable(question, "field 'question'", encoding))


def _flag(fields: dict[str, Any], name: str, default: bool) -> bool:
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise BadEvent(f"field {name!r} must be bool, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """The type of a value, in JSON's words."""
    if is_number(value):
        return "a number"
    return _KINDS.get(type(value), type(value).__name__)
