"""Segments, tails and questions as msgpack, the way they lie in Redis.

Knows the layout of each; the version of all of them is in the keys' prefix.
"""

from typing import Any

import msgpack

from xl3m_core import Segment, Tail, Unit


def pack(value: Any) -> bytes:
    """Plain data as msgpack."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack(blob: bytes) -> Any:
    """Plain data from msgpack written by `pack`."""
    return msgpack.unpackb(blob, raw=False, use_list=False)


def pack_segment(s: Segment) -> bytes:
    """A segment without its index, which is its name in the log."""
    return pack((s.text, s.start, s.end, s.start_token, s.end_token, s.start_ms, s.end_ms))


def unpack_segment(index: int, blob: bytes) -> Segment:
    """The segment of that index."""
    return Segment(index, *unpack(blob))


def pack_tail(tail: Tail) -> bytes:
    """A tail with its units."""
    units = [(unit.text, unit.tokens, unit.time_ms) for unit in tail.units]
    rest = (
        tail.index,
        tail.start,
        tail.start_token,
        tail.overlap_units,
        tail.partial,
        tail.partial_ms,
    )
    return pack((units, *rest))


def unpack_tail(blob: bytes | None) -> Tail:
    """The tail, or that of a stream that has not begun."""
    if blob is None:
        return Tail()
    units, index, start, start_token, seen, partial, partial_ms = unpack(blob)
    units = tuple(Unit(*unit) for unit in units)
    return Tail(index, start, start_token, units, seen, partial, partial_ms)
