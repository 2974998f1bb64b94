"""Packed: the map in a value of msgpack, and the text of token ids in it.

Knows msgpack and what decodes ids; no fields but that.
"""

from collections.abc import Callable
from typing import Any

import msgpack

from stream_app.errors import BadEvent

MSGPACK_MAPS = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))
"""First bytes of a map."""
IdDecoder = Callable[[list[int]], str]


def map_of(value: bytes) -> dict[str, Any]:
    """The map. Raises BadEvent."""
    if value[0] not in MSGPACK_MAPS:
        raise BadEvent("the value is not a msgpack map")
    try:
        fields = msgpack.unpackb(value, raw=False, strict_map_key=True)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise BadEvent(f"the value is not msgpack: {error}") from None
    if not isinstance(fields, dict):
        raise BadEvent("the value is msgpack, but not a map")
    return fields


def text_of_ids(ids: Any, decode_ids: IdDecoder) -> str:
    """The text of token ids, which must be whole characters."""
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
