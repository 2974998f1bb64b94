"""What the scorer knows of a stream and its questions, and the jobs it makes of what is unscored.

`TrackedQuestion.next_job` marks the job's segments as planned, so that the next call continues
after them. `range_update` turns a job's scores into a change of the question's range. No I/O.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from stream_app.scoring.index_set import IndexSet
from stream_app.scoring.pending import PendingSegments
from stream_app.store.range_update import Extended, RangeUpdate, spans
from stream_app.store.rows import SKIPPED_ROW, flag_of, pack_row
from stream_app.store.state import Cursor, QuestionRecord, ScoredRange
from xl3m_core import Segment
from xl3m_core.features import Features
from xl3m_core.relevance import SMOOTHED_MEASURES
from xl3m_core.smoothing import is_running_text

if TYPE_CHECKING:
    from xl3m_core import Engine


@dataclass(slots=True)
class TrackedQuestion:
    """A question of a stream and its scored range.

    planned: the range once every job in flight is written. ahead: segments outside the scored range
    that are scored; in_flight: those of jobs in flight. candidates: segments to score before the
    rest of the history, the most promising first. pending: lexical scores of the live edge, while
    it is far behind. refused: a write was, so that what is known here may be wrong.
    """

    stream: str
    qid: str
    record: QuestionRecord
    scored_range: ScoredRange
    planned: ScoredRange = field(init=False)
    ahead: IndexSet = field(default_factory=IndexSet)
    in_flight: IndexSet = field(default_factory=IndexSet)
    candidates: deque[int] = field(default_factory=deque)
    pending: PendingSegments = field(default_factory=PendingSegments)
    refused: bool = False

    def __post_init__(self) -> None:
        self.reset_plan()

    def reset_plan(self) -> None:
        """Forget the jobs in flight: the next ones start from the scored range."""
        self.planned = replace(self.scored_range)
        self.in_flight = IndexSet()
        self.pending = PendingSegments()

    def unscored(self, cursor: Cursor, history: bool) -> int:
        """Segments of the live edge that no job has yet; with `history`, of the whole retained
        log. At least 1 if the range is to be extended, though only by what is scored or deleted."""
        live, before = self.unplanned(cursor)
        count = self._count(live)
        if not count and self.planned.hi < cursor.head:
            count = 1
        if not history:
            return count
        return count + (self._count(before) or int(bool(before)))

    def _count(self, indices: range) -> int:
        """How many of these no job has yet."""
        planned = self._planned_ahead()
        return len(indices) - planned.count(indices.start, indices.stop)

    def _planned_ahead(self) -> IndexSet:
        """The segments outside the planned range that are scored once all jobs in flight are
        written."""
        return self.ahead | self.in_flight

    def unplanned(self, cursor: Cursor) -> tuple[range, range]:
        """The retained segments after the planned range, and before it."""
        first = cursor.first
        behind = range(max(self.planned.hi, first), max(cursor.head, first))
        return behind, range(first, max(self.planned.lo, first))

    def unread(self, cursor: Cursor) -> tuple[int, int]:
        """How many retained segments have no score yet: of the live edge, and before the range."""
        first, head, scored = cursor.first, cursor.head, self.scored_range
        behind, before = (max(scored.hi, first), head), (first, scored.lo)
        live, history = (max(0, hi - lo) - self.ahead.count(lo, hi) for lo, hi in (behind, before))
        return live, history

    def is_behind(self, head: int, first: int) -> bool:
        """Whether any segment from `first` up to `head` is unscored."""
        return self.scored_range.hi < head or self.scored_range.lo > first

    def next_job(
        self, cursor: Cursor, limit: int, history: bool, picks: Sequence[int] = ()
    ) -> "ScoringJob | None":
        """At most `limit` segments of the live edge, those of `picks` or else the oldest ones; with
        `history`, candidates come before it and the log before the range comes after it. Marks them
        as planned; None if there are none."""
        ahead = self._planned_ahead()
        live, before = self.unplanned(cursor)
        if history and (candidates := self._pop_candidates(limit, cursor.first)):
            return self._plan(candidates, cursor)
        if self.planned.hi < cursor.head:
            chosen = [i for i in picks if i in live and i not in ahead]
            chosen = chosen or ahead.oldest_missing(live.start, live.stop, limit)
            return self._plan(chosen, cursor)
        if history and before:
            return self._plan(ahead.newest_missing(before.start, before.stop, limit), cursor)
        return None

    def unmatched(self, cursor: Cursor, limit: int) -> list[int]:
        """At most `limit` of the newest unread segments of the live edge without a lexical score;
        scores of those that are read are forgotten."""
        live, _ = self.unplanned(cursor)
        self.pending.forget_before(live.start)
        known = self._planned_ahead() | self.pending.matched
        return known.newest_missing(live.start, live.stop, limit)

    def newest_unread(self, cursor: Cursor, limit: int) -> list[int]:
        """At most `limit` segments of the live edge that no job has yet, the last one first."""
        live, _ = self.unplanned(cursor)
        return self._planned_ahead().newest_missing(live.start, live.stop, limit)

    def promising(self, cursor: Cursor) -> Iterator[int]:
        """Segments of the live edge that no job has yet, the one with most of the question's words
        first."""
        live, ahead = self.unplanned(cursor)[0], self._planned_ahead()
        return self.pending.best(lambda index: index in live and index not in ahead)

    def _pop_candidates(self, limit: int, first: int) -> list[int]:
        """At most `limit` retained candidates that no job has yet."""
        popped, ahead = list[int](), self._planned_ahead()
        while self.candidates and len(popped) < limit:
            index = self.candidates.popleft()
            is_planned = self.planned.lo <= index < self.planned.hi or index in ahead
            if index >= first and not is_planned:
                popped.append(index)
        return popped

    def scattered_job(self, indices: Iterable[int], cursor: Cursor) -> "ScoringJob":
        """A job for these segments, which no job has yet, anywhere in the log."""
        return self._plan(indices, cursor)

    def _plan(self, indices: Iterable[int], cursor: Cursor) -> "ScoringJob":
        """A job for these. The range then covers what is scored next to it, and what is deleted."""
        seen, ahead, chosen = self.planned, self._planned_ahead(), sorted({*indices})
        self.in_flight.add(chosen)
        ahead.add(chosen)
        lo = ahead.start_of_run(seen.lo, min(cursor.first, seen.lo))
        hi = ahead.end_of_run(min(max(seen.hi, cursor.first), cursor.head))
        self.planned = replace(seen, lo=lo, hi=hi, read=-1)
        return ScoringJob(self, seen, lo, hi, tuple(chosen))

    def written(self, job: "ScoringJob", reply: Extended) -> None:
        """The job's rows are in Redis, and the range has moved."""
        scored = self.scored_range
        scored.lo, scored.hi, scored.read, scored.skipped = job.lo, job.hi, *reply[1:]
        self.in_flight.discard(job.indices)
        self.ahead.add(job.indices)
        self.ahead.discard_between(job.lo, job.hi)

    def note_refused(self) -> None:
        """A job was not written: forget those in flight, and have the question read again."""
        self.reset_plan()
        self.refused = True

    def set_ahead(self, indices: Iterable[int]) -> None:
        """These are the segments outside the range that are read."""
        self.ahead = IndexSet(indices)


@dataclass(slots=True)
class TrackedStream:
    """A stream as the scorer knows it. owned: this worker scores its live edge; waiters: how many
    queries wait for it here; turn: counts the picks of `triage`; questions: by their ids."""

    cursor: Cursor
    owned: bool = False
    waiters: int = 0
    turn: int = 0
    questions: dict[str, TrackedQuestion] = field(default_factory=dict)

    def standing_questions(self) -> list[TrackedQuestion]:
        """The questions that do not expire."""
        return [q for q in self.questions.values() if q.record.is_standing]

    def forget_pending(self) -> None:
        """No lexical score is needed: all is read."""
        for question in self.standing_questions():
            if question.pending.matched:
                question.pending = PendingSegments()

    def update_questions(self, loaded: dict[str, TrackedQuestion], changed: set[str]) -> None:
        """Replace the questions by those just read from Redis. One that had not `changed` by then
        keeps its jobs in flight and what was written since, and every one keeps its candidates and
        what is pending."""
        for qid, question in loaded.items():
            known = self.questions.get(qid)
            if known and qid not in changed:
                known.record = question.record
                loaded[qid] = known
            elif known:
                question.candidates, question.pending = known.candidates, known.pending
        self.questions = loaded

    def changed(self, loaded: Mapping[str, TrackedQuestion]) -> list[TrackedQuestion]:
        """Those of the questions just read from Redis that are not as they are known here."""
        known = {qid: question for qid, question in self.questions.items() if not question.refused}
        return [
            question
            for qid, question in loaded.items()
            if qid not in known or known[qid].scored_range != question.scored_range
        ]

    def unscored(self, questions: Iterable[TrackedQuestion], history: bool) -> int:
        """Segments that no job has yet, summed over the questions."""
        return sum(question.unscored(self.cursor, history) for question in questions)

    def with_unscored(
        self, questions: Iterable[TrackedQuestion], history: bool
    ) -> list[TrackedQuestion]:
        """Those of the questions that have any unscored segment, those with most first."""
        counts = [(question.unscored(self.cursor, history), question) for question in questions]
        counts.sort(key=lambda counted: -counted[0])
        return [question for count, question in counts if count]


@dataclass(frozen=True, slots=True)
class ScoringJob:
    """Segments to score for a question, `indices` in their order, and its range [lo, hi) from then
    on: it covers those of them that are next to it, and what is scored beside these.

    seen: the question's range once all jobs planned before this one are written.
    """

    question: TrackedQuestion
    seen: ScoredRange
    lo: int
    hi: int
    indices: tuple[int, ...]

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self.question.stream

    @property
    def qid(self) -> str:
        """The question's id."""
        return self.question.qid


@dataclass(frozen=True, slots=True)
class Step:
    """Jobs that are scored by one call of the model, and each one's segments. tokens: their
    estimated number; fill: that number over the size of a step."""

    jobs: list[ScoringJob]
    segments: list[list[Segment]]
    tokens: int
    fill: float

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(segment text, question), job by job."""
        each = zip(self.jobs, self.segments, strict=True)
        return [(s.text, job.question.record.question) for job, segments in each for s in segments]


def row_of(segment: Segment, features: Features, engine: "Engine") -> bytes:
    """The row of a segment with these raw numbers, by the engine's measure."""
    is_running_text = _is_running_text(segment.text)
    is_smoothed = is_running_text and engine.method.measure in SMOOTHED_MEASURES
    flag = flag_of(is_running_text=is_running_text, is_smoothed=is_smoothed)
    return pack_row(engine.relevance(features), flag, features)


_is_running_text = lru_cache(maxsize=4096)(is_running_text)
"""Cached, since all questions of a stream ask it of the same segments."""


def range_update(job: ScoringJob, rows: Mapping[int, bytes]) -> RangeUpdate:
    """The job's rows, by index, as a change of its range. Segments without one were deleted."""
    runs = [
        (lo, b"".join(rows.get(index, SKIPPED_ROW) for index in range(lo, hi)))
        for lo, hi in spans(job.indices)
    ]
    return RangeUpdate(job.stream, job.qid, job.seen, job.lo, job.hi, runs)
