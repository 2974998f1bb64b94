"""Packed: the map in a msgpack value, and the text of token ids in its field `ids`."""

from collections.abc import Callable
from typing import Any

from stream_app.errors import BadEvent
from stream_app.formats.text import msgpack_of

MSGPACK_MAPS = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))
"""First bytes of a msgpack map."""
IdDecoder = Callable[[list[int]], str]


def map_of(value: bytes, encoding: str = "strict") -> dict[str, Any]:
    """The map. Raises BadEvent."""
    if value[0] not in MSGPACK_MAPS:
        raise BadEvent("the value is not a msgpack map")
    fields = msgpack_of(value, encoding)
    if not isinstance(fields, dict):
        raise BadEvent("the value is msgpack, but not a map")
    return fields


def text_of_ids(ids: Any, decode_ids: IdDecoder) -> str:
    """The text of token ids. Raises BadEvent, also if they begin or end inside a character."""
    is_list = isinstance(ids, list) and all(isinstance(i, int) and 0 <= i < 2**31 for i in ids)
    if not is_list or not ids:
        raise BadEvent("field 'ids' must be a list of token ids")
    try:
        text = decode_ids(ids)
    except (IndexError, OverflowError, TypeError, ValueError) as error:
        raise BadEvent(f"field 'ids' cannot be decoded: {error}") from None
    if "\N{REPLACEMENT CHARACTER}" in (text[:1], text[-1:]):
        raise BadEvent("field 'ids' begins or ends inside a character: send whole characters")
    return text
