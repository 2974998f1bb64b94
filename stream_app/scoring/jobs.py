"""Work: what to score next of a range, and what its scores make of the range.

Pure: ranges and scores in, work and extensions out. Knows no store and no model.
"""

import asyncio
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stream_app.store.state import Cursor, QuestionRecord, RangeUpdate, ScoredRange
from xl3m_core import Segment, TopK

NAN = float("nan")


@dataclass(slots=True)
class TrackedQuestion:
    """A question of a stream, what is scored for it, and what will be when all is written that
    is under way."""

    record: QuestionRecord
    scored_range: ScoredRange
    planned: ScoredRange = field(init=False)

    def __post_init__(self) -> None:
        self.planned = replace(self.scored_range)

    def unscored(self, cursor: Cursor, back: bool) -> int:
        """Segments not under way: of the live edge; with `back`, of all that is retained."""
        behind = max(0, self.planned.lo - cursor.first) if back else 0
        return max(0, cursor.head - self.planned.hi) + behind

    def is_behind(self, head: int, first: int) -> bool:
        """Whether anything from `first` up to `head` is not scored."""
        return self.scored_range.hi < head or self.scored_range.lo > first


@dataclass(slots=True)
class TrackedStream:
    """A stream as scoring sees it; owned: its live edge is this worker's to score; waiters: how
    many queries wait for it here; picks: what is to be scored first for a question; looking: for
    which questions that is being found out."""

    cursor: Cursor
    owned: bool = False
    waiters: int = 0
    questions: dict[str, TrackedQuestion] = field(default_factory=dict)
    candidates: dict[str, deque[int]] = field(default_factory=dict)
    looking: set[str] = field(default_factory=set)
    loading: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def standing_questions(self) -> dict[str, TrackedQuestion]:
        """The questions that were not only asked once."""
        return {
            q: standing for q, standing in self.questions.items() if not standing.record.expires_at
        }

    def take(self, standing: dict[str, TrackedQuestion]) -> None:
        """The questions as they were read now; of those that are as they were known, what is
        under way stays known."""
        for qid, read in standing.items():
            known = self.questions.get(qid)
            if known and known.scored_range == read.scored_range:
                known.record = read.record
                standing[qid] = known
        self.questions = standing
        self.candidates = {qid: picks for qid, picks in self.candidates.items() if qid in standing}


def lacking(planned: ScoredRange, cursor: Cursor) -> tuple[range, range]:
    """What of the log is not under way: behind the range, and before it."""
    first = cursor.first
    return range(max(planned.hi, first), cursor.head), range(first, max(planned.lo, first))


@dataclass(frozen=True, slots=True)
class ScoringJob:
    """Segments lo up to hi of a stream, to be scored for a question whose range will be `seen`
    once all that was planned before is written; or `picks`, which leave the range as it is."""

    stream: str
    qid: str
    tracked: TrackedQuestion
    seen: ScoredRange
    lo: int
    hi: int
    candidates: tuple[int, ...] = ()

    @property
    def indices(self) -> Sequence[int]:
        """The segments to be scored."""
        return self.candidates or range(self.lo, self.hi)


def next_job(
    stream: str, qid: str, watched: TrackedStream, most: int, back: bool
) -> ScoringJob | None:
    """At most so many segments of the range's live edge, or (if `back`) of what lies before it,
    those first that were picked out.

    They are under way from now on: the next call gives what follows.
    """
    standing, cursor = watched.questions[qid], watched.cursor
    seen, planned = replace(standing.planned), standing.planned
    if back and (picks := _next_picks(watched.candidates.get(qid), seen, most)):
        return ScoringJob(stream, qid, standing, seen, seen.hi, seen.hi, picks)
    if seen.hi < cursor.head:
        planned.hi = min(max(seen.hi, cursor.first) + most, cursor.head)
        return ScoringJob(stream, qid, standing, seen, seen.hi, planned.hi)
    if back and seen.lo > cursor.first:
        planned.lo = max(cursor.first, seen.lo - most)
        return ScoringJob(stream, qid, standing, seen, planned.lo, seen.lo)
    return None


def _next_picks(picks: deque[int] | None, planned: ScoredRange, most: int) -> tuple[int, ...]:
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

    jobs: list[ScoringJob]
    segments: list[list[Segment]]
    tokens: int
    fill: float

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(segment text, question), work by work."""
        each = zip(self.jobs, self.segments, strict=True)
        return [(s.text, w.tracked.record.question) for w, segments in each for s in segments]


def range_update(
    w: ScoringJob, scores: dict[Segment, float], k: int, first: int = 0
) -> RangeUpdate:
    """The work's scores as a change of its range; segments gone from the log, which begins at
    `first`, are NaN there."""
    by_index = {segment.index: score for segment, score in scores.items()}
    top = TopK(k)
    for index, score in by_index.items():
        top.add(index, score)
    chosen = dict(top.best())
    return RangeUpdate(
        stream=w.stream,
        qid=w.qid,
        seen=w.seen,
        lo=min(w.seen.lo, w.lo),
        hi=max(w.seen.hi, w.hi),
        start=w.lo,
        scores=array("f", [by_index.get(i, NAN) for i in range(w.lo, w.hi)]).tobytes(),
        best=[(s, chosen[s.index]) for s in scores if s.index in chosen],
        skipped=0 if w.candidates else (w.hi - w.lo) - len(scores),
        first=first,
    )
