"""Replies: what Redis gives -> the values of a stream's state.

Knows the layout of hashes and entries; not how they are asked for.
"""

import time
from collections.abc import Sequence
from typing import Any

from stream_app.store.codec import unpack, unpack_segment, unpack_tail
from stream_app.store.state import (
    Commit,
    Cursor,
    FencedError,
    QueryView,
    QuestionRecord,
    RestartedError,
    ScoredRange,
    Snapshot,
    State,
)
from xl3m_core import Segment

_NUMBERS = ("version", "head", "first", "gaps", "questions", "rebuilt")


def to_segments(entries: Any) -> list[Segment]:
    """Entries of the log."""
    return [unpack_segment(int(id.split(b"-")[0]), fields[b"s"]) for id, fields in entries]


def to_pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """What Redis gives as a list of names and values in turn."""
    each = iter(flat)
    return dict(zip(each, each, strict=True))


def to_question(fields: dict[bytes, bytes]) -> dict[str, QuestionRecord]:
    """A stream's questions by id."""
    return {qid.decode(): QuestionRecord(*unpack(blob)) for qid, blob in fields.items()}


def to_cursor(fields: dict[bytes, bytes]) -> Cursor:
    """Where a stream stands; a new one if there is nothing."""
    named = {name.decode(): int(value) for name, value in fields.items()}
    plain = {f: named.get(f, 0) for f in _NUMBERS}
    next_ = {n.removeprefix("next:"): v for n, v in named.items() if n.startswith("next:")}
    cuts = {int(n.removeprefix("cut:")): v for n, v in named.items() if n.startswith("cut:")}
    return Cursor(**plain, next=next_, cuts=cuts)


def to_state(commit: Commit, reply: list[int]) -> State | None:
    """The state a commit made, None if another wrote meanwhile. Raises FencedError and
    RestartedError."""
    if reply[0] == -2:
        raise RestartedError
    if reply[0] == -1:
        raise FencedError(
            f"stream {commit.stream!r}: {commit.partition} has a later owner than epoch "
            f"{commit.epoch}; nothing from offset {commit.next_offset - 1} was written"
        )
    if reply[0] == 0:
        return None
    old, (_, version, head, first, questions) = commit.base.cursor, reply
    next_ = old.next | {commit.partition: commit.next_offset}
    cuts = old.cuts | ({old.head: commit.new_cut} if commit.new_cut else {})
    gaps = old.gaps + commit.gaps
    cursor = Cursor(version, head, first, gaps, questions, next_, old.rebuilt, cuts)
    return State(cursor, commit.tail)


def to_query_view(reply: Sequence[Any]) -> QueryView:
    """The reply of read_view.lua."""
    qid, record, time_, cursor, tail, edges, top, texts = reply
    state = State(to_cursor(to_pairs(cursor)), unpack_tail(tail))
    scored = to_range(to_pairs(edges))
    return QueryView(
        state=state,
        now=to_seconds(time_),
        qid=qid.decode(),
        record=QuestionRecord(*unpack(record)) if record else None,
        snapshot=Snapshot(state, scored, _to_top(top, texts)) if scored else None,
    )


def _to_top(scores: Sequence[bytes], texts: Sequence[bytes]) -> list[tuple[Segment, float]]:
    """The segments of a top-k with their scores, the most certain first."""
    packed = to_pairs(texts)
    best = [(int(i), float(score), packed[i]) for i, score in to_pairs(scores).items()]
    best.sort(key=lambda item: (-item[1], item[0]))
    return [(unpack_segment(index, blob), score) for index, score, blob in best]


def to_seconds(reply: Sequence[Any] | None) -> float:
    """The time that Redis' TIME gave; this machine's if Redis does not let us ask."""
    return float(reply[0]) + float(reply[1]) / 1e6 if reply else time.time()


def to_range(fields: dict[bytes, bytes]) -> ScoredRange | None:
    """A question's range, None if it has none."""
    if not fields:
        return None
    return ScoredRange(
        *(int(fields[name]) for name in (b"lo", b"hi")),
        *(int(fields.get(name, 0)) for name in (b"skipped", b"rebuilt")),
    )
