"""Ranking: the best segments of a snapshot, with those whose final score is not settled yet.

The top-k in Redis holds settled segments: those that are not smoothed, and those whose neighbours
are all read. The others are ranked here when a query comes, by the mean over the neighbours there
are; so is the tail, whose segments are neighbours of the log's last ones.
"""

from collections.abc import Iterable, Sequence

from stream_app.store.rows import Rows
from stream_app.store.state import Snapshot
from xl3m_core import Segment, TopK

Ranked = list[tuple[Segment, float]]
"""Segments and their final scores, the most relevant first."""


def ranked(snapshot: Snapshot, k: int, tail: Sequence[tuple[Segment, bytes]] = ()) -> Ranked:
    """The k best segments. tail: segments after the log's last one, with their rows."""
    scored = {segment.index: (segment, score) for segment, score in snapshot.top}
    for edge in snapshot.edges[:-1]:
        scored |= _final(edge.segments, edge.rows)
    rows, last = Rows(snapshot.state.cursor.head), list[Segment]()
    if snapshot.edges:
        rows, last = snapshot.edges[-1].rows, snapshot.edges[-1].segments
    rows = rows.followed_by(row for _, row in tail)
    scored |= _final([*last, *(segment for segment, _ in tail)], rows)
    top = TopK(k)
    for segment, score in scored.values():
        top.add(segment.index, score)
    return [scored[index] for index, _ in top.best()]


def _final(segments: Iterable[Segment], rows: Rows) -> dict[int, tuple[Segment, float]]:
    scores = ((segment, rows.final_score(segment.index)) for segment in segments)
    return {s.index: (s, score) for s, score in scores if score is not None}


def best_unsettled(rows: Rows, first: int, k: int) -> list[tuple[int, float]]:
    """The k best of the segments from `first` on that are read and may not be settled, by the
    neighbours there are."""
    top = TopK(k)
    for index in rows.unsettled():
        score = rows.final_score(index) if index >= first else None
        if score is not None:
            top.add(index, score)
    return top.best()
