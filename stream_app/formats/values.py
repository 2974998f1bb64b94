"""Values: the text of a field's value, for the types of JSON, msgpack and schema registries."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")
LEVELS = 50
"""Nesting of a value of OpenTelemetry that is followed."""


def as_text(value: Any) -> str | None:
    """The value as text; maps and lists as compact JSON. None for null and empty values."""
    if isinstance(value, str):
        return whole(value) or None
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace") or None
    if isinstance(value, dict | list | tuple):
        return whole(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=as_text))
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def whole(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which JSON can write but UTF-8 cannot."""
    return text if text.isascii() else SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def is_number(value: Any) -> bool:
    """Whether it is a number; a boolean, which Python counts as one, is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def key_as_text(value: Any) -> str | None:
    """A scalar as the name of a stream; None for maps and lists."""
    return None if isinstance(value, dict | list | tuple) else as_text(value)


def same(value: Any) -> Any:
    """The value unchanged."""
    return value


def joined_bytes(value: Any) -> Any:
    """The text that journald wrote as a list of bytes; other values unchanged."""
    if isinstance(value, list) and value and all(_is_byte(each) for each in value):
        return bytes(value).decode("utf-8", "replace")
    return value


def _is_byte(value: Any) -> bool:
    return is_number(value) and isinstance(value, int) and 0 <= value <= 255


def any_value(value: Any) -> Any:
    """The content of an AnyValue of OpenTelemetry; other values unchanged."""
    return _any_value(value, LEVELS)


def _any_value(value: Any, levels: int) -> Any:
    if not isinstance(value, Mapping) or len(value) != 1 or not levels:
        return value
    ((kind, held),) = value.items()
    if kind == "arrayValue" and isinstance(held, Mapping):
        return [_any_value(each, levels - 1) for each in _values_of(held)]
    if kind == "kvlistValue" and isinstance(held, Mapping):
        pairs = [pair for pair in _values_of(held) if isinstance(pair, Mapping)]
        return {str(pair.get("key")): _any_value(pair.get("value"), levels - 1) for pair in pairs}
    if kind == "bytesValue" and isinstance(held, str):
        return _from_base64(held)
    return held if kind in ("stringValue", "intValue", "doubleValue", "boolValue") else value


def _values_of(held: Mapping[str, Any]) -> list[Any]:
    values = held.get("values")
    return values if isinstance(values, list) else []


def _from_base64(text: str) -> str:
    """The bytes as text; what is not base64 stays as it is."""
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "replace")
    except (ValueError, binascii.Error):
        return text
