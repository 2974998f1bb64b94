"""Work: what to score next of a range, and what its scores make of the range.

Pure: ranges and scores in, work and extensions out. Knows no store and no model.
"""

import asyncio
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stream_app.store.state import Asked, Cursor, Extension, Range
from xl3m_core import Segment, TopK

NAN = float("nan")


@dataclass(slots=True)
class Standing:
    """A question of a stream, what is scored for it, and what will be when all is written that
    is under way."""

    asked: Asked
    range: Range
    planned: Range = field(init=False)

    def __post_init__(self) -> None:
        self.planned = replace(self.range)

    def owed(self, cursor: Cursor, back: bool) -> int:
        """Segments not under way: of the live edge; with `back`, of all that is retained."""
        behind = max(0, self.planned.lo - cursor.first) if back else 0
        return max(0, cursor.head - self.planned.hi) + behind

    def lacks(self, head: int, first: int) -> bool:
        """Whether anything from `first` up to `head` is not scored."""
        return self.range.hi < head or self.range.lo > first


@dataclass(slots=True)
class Watched:
    """A stream as scoring sees it; owned: its live edge is this worker's to score; waiters: how
    many queries wait for it here; picks: what is to be scored first for a question; looking: for
    which questions that is being found out."""

    cursor: Cursor
    owned: bool = False
    waiters: int = 0
    questions: dict[str, Standing] = field(default_factory=dict)
    picks: dict[str, deque[int]] = field(default_factory=dict)
    looking: set[str] = field(default_factory=set)
    loading: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def current(self) -> dict[str, Standing]:
        """The questions that were not only asked once."""
        return {q: standing for q, standing in self.questions.items() if not standing.asked.until}

    def take(self, standing: dict[str, Standing]) -> None:
        """The questions as they were read now; of those that are as they were known, what is
        under way stays known."""
        for qid, read in standing.items():
            known = self.questions.get(qid)
            if known and known.range == read.range:
                known.asked = read.asked
                standing[qid] = known
        self.questions = standing
        self.picks = {qid: picks for qid, picks in self.picks.items() if qid in standing}


def lacking(planned: Range, cursor: Cursor) -> tuple[range, range]:
    """What of the log is not under way: behind the range, and before it."""
    first = cursor.first
    return range(max(planned.hi, first), cursor.head), range(first, max(planned.lo, first))


@dataclass(frozen=True, slots=True)
class Work:
    """Segments lo up to hi of a stream, to be scored for a question whose range will be `seen`
    once all that was planned before is written; or `picks`, which leave the range as it is."""

    stream: str
    qid: str
    standing: Standing
    seen: Range
    lo: int
    hi: int
    picks: tuple[int, ...] = ()

    @property
    def indices(self) -> Sequence[int]:
        """The segments to be scored."""
        return self.picks or range(self.lo, self.hi)


def next_work(stream: str, qid: str, watched: Watched, most: int, back: bool) -> Work | None:
    """At most so many segments of the range's live edge, or (if `back`) of what lies before it,
    those first that were picked out.

    They are under way from now on: the next call gives what follows.
    """
    standing, cursor = watched.questions[qid], watched.cursor
    seen, planned = replace(standing.planned), standing.planned
    if back and (picks := _next_picks(watched.picks.get(qid), seen, most)):
        return Work(stream, qid, standing, seen, seen.hi, seen.hi, picks)
    if seen.hi < cursor.head:
        planned.hi = min(max(seen.hi, cursor.first) + most, cursor.head)
        return Work(stream, qid, standing, seen, seen.hi, planned.hi)
    if back and seen.lo > cursor.first:
        planned.lo = max(cursor.first, seen.lo - most)
        return Work(stream, qid, standing, seen, planned.lo, seen.lo)
    return None


def _next_picks(picks: deque[int] | None, planned: Range, most: int) -> tuple[int, ...]:
    """Take so many, leaving out what the range has or will have."""
    taken = list[int]()
    while picks and len(taken) < most:
        if not planned.lo <= (pick := picks.popleft()) < planned.hi:
            taken.append(pick)
    return tuple(sorted(taken))


@dataclass(frozen=True, slots=True)
class Step:
    """Work that goes through the model in one go: its segments, about how many tokens, and what
    share that is of those it may have."""

    work: list[Work]
    segments: list[list[Segment]]
    tokens: int
    fill: float

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(segment text, question), work by work."""
        each = zip(self.work, self.segments, strict=True)
        return [(s.text, w.standing.asked.question) for w, segments in each for s in segments]


def extension(w: Work, scores: dict[Segment, float], k: int, first: int = 0) -> Extension:
    """The work's scores as a change of its range; segments gone from the log, which begins at
    `first`, are NaN there."""
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
        skipped=0 if w.picks else (w.hi - w.lo) - len(scores),
        first=first,
    )
