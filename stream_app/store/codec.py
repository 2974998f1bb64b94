"""Codec: converts segments, tails, questions and ranges to and from their form in Redis.

Values are msgpack; fields of hashes are plain numbers. The schema's number, which every key has,
stands for this form. `pack_…` and `unpack_…` convert values, `to_…` convert replies.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from stream_app.store.range_update import Extended, RangeResult
from stream_app.store.rows import Rows
from stream_app.store.state import (
    Commit,
    Committed,
    Conflict,
    Cursor,
    Edge,
    FencedError,
    QueryView,
    QuestionRecord,
    RestartedError,
    ScoredRange,
    Snapshot,
    State,
)
from xl3m_core import Segment, Tail, Unit

_NUMBERS = ("version", "head", "first", "gaps", "questions", "rebuilt")


def pack(value: Any) -> bytes:
    """Plain data as msgpack."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack(blob: bytes) -> Any:
    """Plain data from msgpack written by `pack`."""
    return msgpack.unpackb(blob, raw=False, use_list=False)


def pack_segment(s: Segment) -> bytes:
    """A segment without its index, which is its id in the log."""
    return pack((s.text, s.start, s.end, s.start_token, s.end_token, s.start_ms, s.end_ms))


def unpack_segment(index: int, blob: bytes) -> Segment:
    """A segment from its index and value."""
    return Segment(index, *unpack(blob))


def pack_tail(tail: Tail) -> bytes:
    """A tail as msgpack."""
    units = [(unit.text, unit.tokens, unit.time_ms) for unit in tail.units]
    fields = (
        tail.index,
        tail.start,
        tail.start_token,
        tail.overlap_units,
        tail.partial,
        tail.partial_ms,
    )
    return pack((units, *fields))


def unpack_tail(blob: bytes | None) -> Tail:
    """A tail; that of a new stream if there is no value."""
    if blob is None:
        return Tail()
    units, index, start, start_token, overlap, partial, partial_ms = unpack(blob)
    units = tuple(Unit(*unit) for unit in units)
    return Tail(index, start, start_token, units, overlap, partial, partial_ms)


def to_segments(entries: Any) -> list[Segment]:
    """Segments from entries of the log."""
    return [unpack_segment(int(id.split(b"-")[0]), fields[b"s"]) for id, fields in entries]


def to_pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A dict from a flat list of names and values."""
    items = iter(flat)
    return dict(zip(items, items, strict=True))


def to_question(fields: dict[bytes, bytes]) -> dict[str, QuestionRecord]:
    """A stream's questions by id, from its hash."""
    return {qid.decode(): QuestionRecord(*unpack(blob)) for qid, blob in fields.items()}


def to_cursor(fields: dict[bytes, bytes]) -> Cursor:
    """A stream's cursor from its hash; that of a new stream if it is empty."""
    named = {name.decode(): int(value) for name, value in fields.items()}
    plain = {f: named.get(f, 0) for f in _NUMBERS}
    next_ = {n.removeprefix("next:"): v for n, v in named.items() if n.startswith("next:")}
    cuts = {int(n.removeprefix("cut:")): v for n, v in named.items() if n.startswith("cut:")}
    return Cursor(**plain, next=next_, cuts=cuts)


def to_committed(commit: Commit, reply: Mapping[str, Any]) -> Committed | Conflict:
    """The result in a reply of commit.lua. Raises FencedError and RestartedError."""
    match reply["result"]:
        case "restarted":
            raise RestartedError
        case "fenced":
            raise FencedError(
                f"stream {commit.stream!r}: {commit.partition} has a later owner than epoch "
                f"{commit.epoch}; nothing from offset {commit.next_offset - 1} was written"
            )
        case "conflict":
            return Conflict()
    old = commit.base.cursor
    cursor = Cursor(
        **{name: reply[name] for name in ("version", "head", "first", "questions")},
        gaps=old.gaps + commit.gaps,
        next=old.next | {commit.partition: commit.next_offset},
        rebuilt=old.rebuilt,
        cuts=old.cuts | ({old.head: commit.new_cut} if commit.new_cut else {}),
    )
    return Committed(State(cursor, commit.tail))


def to_extended(reply: Mapping[str, Any]) -> Extended:
    """The result in a reply of extend_range.lua."""
    counts = (reply.get(name, 0) for name in ("read", "skipped"))
    return Extended(RangeResult(reply["result"]), *counts)


def to_query_view(reply: Sequence[Any]) -> QueryView:
    """The view in a reply of read_view.lua."""
    qid, record, time_, cursor, tail, range_, top, texts, edges = reply
    state = State(to_cursor(to_pairs(cursor)), unpack_tail(tail))
    fields = to_pairs(range_)
    scored = to_range(fields)
    return QueryView(
        state=state,
        now=to_seconds(time_),
        qid=qid.decode(),
        record=QuestionRecord(*unpack(record)) if record else None,
        snapshot=Snapshot(
            state, scored, _to_top(top, texts), [*map(_to_edge, edges)], int(fields.get(b"k", 0))
        )
        if scored
        else None,
    )


def _to_top(scores: Sequence[bytes], texts: Sequence[bytes]) -> list[tuple[Segment, float]]:
    """The segments of a top-k with their scores, the most certain first."""
    packed = to_pairs(texts)
    best = [(int(i), float(score), packed[i]) for i, score in to_pairs(scores).items()]
    best.sort(key=lambda item: (-item[1], item[0]))
    return [(unpack_segment(index, blob), score) for index, score, blob in best]


def _to_edge(reply: Sequence[Any]) -> Edge:
    start, rows, entries = reply
    return Edge(Rows(start, rows), to_segments((id, to_pairs(fields)) for id, fields in entries))


def to_seconds(reply: Sequence[Any] | None) -> float:
    """Seconds from the reply of TIME; this machine's time if the user may not call it."""
    return float(reply[0]) + float(reply[1]) / 1e6 if reply else time.time()


def to_range(fields: dict[bytes, bytes]) -> ScoredRange | None:
    """A question's range from its hash; None if it is empty."""
    if not fields:
        return None
    return ScoredRange(
        *(int(fields[name]) for name in (b"lo", b"hi")),
        *(int(fields.get(name, 0)) for name in (b"skipped", b"rebuilt", b"read")),
    )
