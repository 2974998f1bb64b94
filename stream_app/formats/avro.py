"""Avro: builds a decoder from a schema and the schemas it references.

Decoded values are plain JSON types: times as ISO 8601, decimals and UUIDs as text, bytes as text.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from io import BytesIO
from typing import Any
from uuid import UUID

import fastavro
from fastavro import read
from fastavro.schema import SchemaParseException

from stream_app.errors import BadEvent

Reader = Callable[[bytes], Any]
# Converting longer ones to text takes quadratic time.
DECIMAL_BYTES = 64
# Parts of one value, without the items of arrays and maps. A few types that reference each other
# can expand to more than fits in memory.
PARTS = 100_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The reader of fastavro in pure Python.
_read_py: Any = import_module("fastavro._read_py")
# Logical types are decoded here under names of our own: the readers of fastavro raise for values
# beyond Python's types, and the record would be lost.
OURS = "xl3m-"


def avro_reader(schema: str, references: Iterable[str] = ()) -> Reader:
    """A decoder for values of the schema; it raises BadEvent. references: the schemas it uses, each
    before those that use it. Raises ValueError for a schema that is invalid or unsafe to decode."""
    try:
        named = dict[str, Any]()
        for reference in references:
            fastavro.parse_schema(json.loads(reference), named_schemas=named)
        parsed = fastavro.parse_schema(json.loads(schema), named_schemas=named)
        whole = fastavro.parse_schema(_whole(parsed, named, set()))
        if _size(parsed, named, {}) > PARTS:
            raise ValueError(f"a value can have more than {PARTS} parts")
        if any(_is_weightless(items, named, {}) for items in _arrays(whole)):
            raise ValueError("it has an array of items without bytes, so their number has no bound")
        reader = _safe_reader(parsed, named)
    except (SchemaParseException, RecursionError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error

    def decode(payload: bytes) -> Any:
        buffer = BytesIO(payload)
        try:
            found = _writable(reader(buffer, whole))
        except (EOFError, ValueError, IndexError, KeyError, RecursionError, TypeError) as error:
            raise BadEvent(f"it does not match its schema ({type(error).__name__})") from None
        except (OverflowError, MemoryError) as error:
            raise BadEvent(f"it does not match its schema ({type(error).__name__})") from None
        if excess := len(payload) - buffer.tell():
            raise BadEvent(f"it has {excess} more bytes than its schema says")
        return found

    return decode


def _safe_reader(parsed: Any, named: dict[str, Any]) -> Callable[[BytesIO, Any], Any]:
    """The compiled reader of fastavro; for a recursive schema the one in Python, because a deeply
    nested value would crash the compiled one."""
    if _is_recursive(parsed, named, (), set()):
        return lambda buffer, whole: _read_py.schemaless_reader(_ShortNumbers(buffer), whole)
    made: Callable[[BytesIO, Any], Any] = fastavro.schemaless_reader
    return made


class _ShortNumbers:
    """A buffer that refuses numbers of more than 64 bits: fastavro reads them byte by byte, and one
    of a million bytes would take hours."""

    def __init__(self, buffer: BytesIO) -> None:
        self.buffer = buffer
        self.run = 0

    def read(self, size: int) -> bytes:
        """Like `read` of a file. Raises EOFError in an overlong number."""
        data = self.buffer.read(size)
        self.run = self.run + 1 if size == 1 and data >= b"\x80" else 0
        if self.run > 10:
            raise EOFError("a number is too long")
        return data


def _whole(schema: Any, named: dict[str, Any], seen: set[str]) -> Any:
    """The parsed schema with each named type written out at its first use."""
    if isinstance(schema, list):
        return [_whole(each, named, seen) for each in schema]
    if isinstance(schema, str):
        known = schema in named and schema not in seen
        return _whole(named[schema], named, seen) if known else schema
    made = {name: value for name, value in schema.items() if not name.startswith("__")}
    if "name" in made:
        seen.add(made["name"])
    if "fields" in made:
        made["fields"] = [
            field | {"type": _whole(field["type"], named, seen)} for field in made["fields"]
        ]
    for inner in ("items", "values"):
        if inner in made:
            made[inner] = _whole(made[inner], named, seen)
    if isinstance(made.get("type"), dict | list):
        made["type"] = _whole(made["type"], named, seen)
    if (logical := made.pop("logicalType", None)) in LOGICAL:
        made["logicalType"] = OURS + logical
    return made


def _parts(schema: Any) -> Iterator[Any]:
    """The direct parts of a schema."""
    if isinstance(schema, list):
        yield from schema
    elif isinstance(schema, dict):
        yield from (field["type"] for field in schema.get("fields", ()))
        yield from (schema[inner] for inner in ("items", "values") if inner in schema)
        if isinstance(schema["type"], dict | list):
            yield schema["type"]


def _arrays(schema: Any) -> Iterator[Any]:
    """The item schemas of all arrays in a schema."""
    if isinstance(schema, dict) and schema["type"] == "array":
        yield schema["items"]
    for part in _parts(schema):
        yield from _arrays(part)


def _is_recursive(
    schema: Any, named: dict[str, Any], within: tuple[str, ...], plain: set[str]
) -> bool:
    """Whether a schema is recursive. plain: types known not to be, so that each is visited once."""
    if isinstance(schema, str):
        if schema in within:
            return True
        if schema not in named or schema in plain:
            return False
        if not _is_recursive(named[schema], named, within, plain):
            plain.add(schema)
        return schema not in plain
    if isinstance(schema, dict) and "name" in schema:
        within = (*within, schema["name"])
    return any(_is_recursive(part, named, within, plain) for part in _parts(schema))


def _size(schema: Any, named: dict[str, Any], known: dict[str, int]) -> int:
    """How many parts a value has at most, with one item per array or map. known: results by type
    name; a type inside itself counts once."""
    if isinstance(schema, str):
        if schema in named and schema not in known:
            known[schema] = 1
            known[schema] = _size(named[schema], named, known)
        return known.get(schema, 1)
    parts = [_size(part, named, known) for part in _parts(schema)]
    size = 1 + (max(parts, default=0) if isinstance(schema, list) else sum(parts))
    if isinstance(schema, dict) and "name" in schema:
        known[schema["name"]] = size
    return size


def _is_weightless(schema: Any, named: dict[str, Any], known: dict[str, bool]) -> bool:
    """Whether a value is encoded in no bytes. known: results by type name."""
    if isinstance(schema, str):
        if schema in named and schema not in known:
            known[schema] = _is_weightless(named[schema], named, known)
        return known.get(schema, schema == "null")
    if isinstance(schema, list):
        return False
    if schema["type"] == "fixed":
        return bool(schema["size"] == 0)
    if "fields" in schema:
        return all(_is_weightless(field["type"], named, known) for field in schema["fields"])
    return bool(schema["type"] == "null")


def _writable(value: Any) -> Any:
    """The value in JSON types; bytes as text, or as base64 if they are not UTF-8."""
    if isinstance(value, dict):
        return {name: _writable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_writable(each) for each in value]
    return bytes_text(value) if isinstance(value, bytes) else value


def bytes_text(value: bytes) -> str:
    """The bytes as text, or as base64 if they are not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _decimal(data: bytes, schema: Any = None, _: Any = None) -> Any:
    if len(data) > DECIMAL_BYTES:
        return data
    sign, digits, _exponent = Decimal(int.from_bytes(data, signed=True)).as_tuple()
    return format(Decimal((sign, digits, -int(schema.get("scale", 0)))), "f")


def _uuid(data: Any, *_: Any) -> Any:
    return str(UUID(bytes=data)) if isinstance(data, bytes) and len(data) == 16 else data


def _moment(per_second: int, is_local: bool) -> Callable[..., Any]:
    """A reader for a timestamp; one beyond the calendar stays a number."""

    def decode(data: int, *_: Any) -> Any:
        try:
            moment = EPOCH + timedelta(microseconds=data * 1_000_000 // per_second)
        except OverflowError:
            return data
        return (moment.replace(tzinfo=None) if is_local else moment).isoformat()

    return decode


def _date(data: int, *_: Any) -> Any:
    try:
        return (date(1970, 1, 1) + timedelta(days=data)).isoformat()
    except OverflowError:
        return data


def _time_of_day(per_second: int) -> Callable[..., Any]:
    def decode(data: int, *_: Any) -> Any:
        microseconds = data * 1_000_000 // per_second
        if not 0 <= microseconds < 86_400_000_000:
            return data
        return (EPOCH + timedelta(microseconds=microseconds)).time().isoformat()

    return decode


_PER_SECOND = {"millis": 1_000, "micros": 1_000_000, "nanos": 1_000_000_000}
LOGICAL: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "decimal": (("bytes", "fixed"), _decimal),
    "uuid": (("string", "fixed"), _uuid),
    "date": (("int",), _date),
    "time-millis": (("int",), _time_of_day(1_000)),
    "time-micros": (("long",), _time_of_day(1_000_000)),
}
LOGICAL |= {
    f"{local}timestamp-{unit}": (("long",), _moment(per_second, bool(local)))
    for unit, per_second in _PER_SECOND.items()
    for local in ("", "local-")
}
for _readers in (read.LOGICAL_READERS, _read_py.LOGICAL_READERS):
    for _name, (_types, _reader) in LOGICAL.items():
        _readers |= {f"{_type}-{OURS}{_name}": _reader for _type in _types}
