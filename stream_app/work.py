"""Work: what to score next of a range, and what its scores make of the range.

Pure: ranges and scores in, work and extensions out. Knows no store and no model.
"""

import asyncio
from array import array
from dataclasses import dataclass, field, replace

from stream_app.state import Asked, Cursor, Extension, Range
from xl3m_core import Segment, TopK

NAN = float("nan")


@dataclass(slots=True)
class Standing:
    """A question of a stream and what is scored for it."""

    asked: Asked
    range: Range

    def lacks(self, head: int, first: int) -> bool:
        """Whether anything from `first` up to `head` is not scored."""
        return self.range.hi < head or self.range.lo > first


@dataclass(slots=True)
class Watched:
    """A stream as scoring sees it; owned: its live edge is this worker's to score."""

    cursor: Cursor
    owned: bool = False
    questions: dict[str, Standing] = field(default_factory=dict)
    loading: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)


@dataclass(frozen=True, slots=True)
class Work:
    """Segments lo up to hi of a stream, to be scored for a question whose range is `seen`."""

    stream: str
    qid: str
    standing: Standing
    seen: Range
    lo: int
    hi: int


def next_work(stream: str, qid: str, watched: Watched | None, most: int, back: bool) -> Work | None:
    """At most so many segments of the range's live edge, or (if `back`) of what lies before it."""
    standing = watched.questions.get(qid) if watched else None
    if watched is None or standing is None:
        return None
    seen, cursor = replace(standing.range), watched.cursor
    if seen.hi < cursor.head:
        return Work(stream, qid, standing, seen, seen.hi, min(seen.hi + most, cursor.head))
    if back and seen.lo > cursor.first:
        return Work(stream, qid, standing, seen, max(cursor.first, seen.lo - most), seen.lo)
    return None


def extension(w: Work, scores: dict[Segment, float], k: int) -> Extension:
    """The work's scores as a change of its range; segments gone from the log are NaN there."""
    by_index = {segment.index: score for segment, score in scores.items()}
    top = TopK(k)
    for index, score in by_index.items():
        top.add(index, score)
    chosen = dict(top.best())
    return Extension(
        stream=w.stream,
        qid=w.qid,
        seen=w.seen,
        lo=min(w.seen.lo, w.lo),
        hi=max(w.seen.hi, w.hi),
        start=w.lo,
        scores=array("f", [by_index.get(i, NAN) for i in range(w.lo, w.hi)]).tobytes(),
        best=[(s, chosen[s.index]) for s in scores if s.index in chosen],
        skipped=(w.hi - w.lo) - len(scores),
    )
