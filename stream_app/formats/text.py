"""Text: bytes -> text, JSON or msgpack, with the same rule for invalid UTF-8 on all endpoints.

`strict` refuses it and names the byte, `replace` puts U+FFFD in its place. UTF-16 and compressed
data are recognised and refused.
"""

import json
import sys
from typing import Any

import msgpack

from stream_app.errors import BadEvent
from stream_app.formats.values import whole

# First bytes of a msgpack map of up to 15 entries. UTF-8 cannot begin with one of these.
MSGPACK_MAP = range(0x80, 0x90)
BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
_BEFORE_JSON = BOM + " \t\r\n"
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_NO_TEXT = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"} | _COMPRESSED


def is_empty(value: bytes | None) -> bool:
    """Whether an event has no content: a tombstone, or no bytes."""
    return not value


def is_json(value: bytes) -> bool:
    """Whether to answer in JSON: everyone but senders of msgpack gets JSON."""
    return not value or value[0] not in MSGPACK_MAP


def text_of(raw: bytes, what: str, encoding: str = "strict") -> str:
    """The bytes as text. Raises BadEvent, which names the first byte that is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        looks = next((name for magic, name in _NO_TEXT.items() if raw.startswith(magic)), "")
        if encoding == "replace" and not looks:
            return raw.decode(errors="replace")
        why = f"the {what} is not UTF-8: byte {error.start} is wrong"
        hint = "XL3M_ENCODING=replace puts U+FFFD in its place"
        hint = f"it looks like {looks}: decode it in the producer" if looks else hint
        raise BadEvent(f"{why}; {hint}") from None


def json_of(value: bytes, encoding: str = "strict") -> Any:
    """The bytes parsed as JSON, without a byte order mark. Raises BadEvent."""
    try:
        return json.loads(text_of(value, "value", encoding).lstrip(_BEFORE_JSON))
    except BadEvent as error:
        raise BadEvent(f"the value is not json: {error}") from None
    except (ValueError, RecursionError) as error:
        raise BadEvent(f"the value is not json: {json_fault(error)}") from None


def json_fault(error: Exception) -> str:
    """What is wrong with invalid JSON, without details of Python."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        return f"a number has more than {sys.get_int_max_str_digits()} digits"
    return str(error)


def is_compressed(value: bytes) -> bool:
    """Whether it begins like gzip or zstd."""
    return value.startswith(tuple(_COMPRESSED))


def msgpack_of(value: bytes, encoding: str = "strict") -> Any:
    """The bytes parsed as msgpack. Raises BadEvent."""
    try:
        return msgpack.unpackb(value, raw=False, strict_map_key=True, unicode_errors=encoding)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise BadEvent(f"the value is not msgpack: {error}") from None


def encodable(text: str, what: str, encoding: str = "strict") -> str:
    """The text without lone surrogates, which JSON can write but UTF-8 cannot. With `strict` they
    raise BadEvent."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        if encoding == "replace":
            return whole(text)
        raise BadEvent(f"{what} has a lone surrogate, which is not text") from None
