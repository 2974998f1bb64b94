"""What the scorer knows of a stream and its questions, and the jobs it makes of what is unread.

`TrackedQuestion.next_job` marks the job's segments as planned, so that the next call continues
after them. `range_update` turns a job's rows into a change of the question's range. No I/O.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from stream_app.scoring.index_set import IndexSet
from stream_app.store.rows import SKIPPED_ROW, flag_of, pack_row, spans
from stream_app.store.state import Cursor, Extended, QuestionRecord, RangeUpdate, ScoredRange
from xl3m_core import Segment
from xl3m_core.features import Features
from xl3m_core.smoothing import is_running_text

if TYPE_CHECKING:
    from xl3m_core import Engine


@dataclass(slots=True)
class TrackedQuestion:
    """A question of a stream and its scored range.

    ahead: segments outside the range that are read; planned, planned_ahead: both once every job in
    flight is written. candidates: segments to score before the rest of the history, the most
    promising first. refused: a write was, so that what is known here may be wrong.
    """

    stream: str
    qid: str
    record: QuestionRecord
    scored_range: ScoredRange
    ahead: IndexSet = field(default_factory=IndexSet)
    planned: ScoredRange = field(init=False)
    planned_ahead: IndexSet = field(init=False)
    candidates: deque[int] = field(default_factory=deque)
    refused: bool = False

    def __post_init__(self) -> None:
        self.reset_plan()

    def reset_plan(self) -> None:
        """Forget the jobs in flight: the next ones start from what is read."""
        self.planned, self.planned_ahead = replace(self.scored_range), self.ahead.copy()

    def set_ahead(self, indices: Iterable[int]) -> None:
        """These are the segments outside the range that are read."""
        self.ahead = IndexSet(indices)
        self.reset_plan()

    def unread(self, head: int) -> int:
        """Segments after the range, up to `head`, that are not read."""
        hi = self.scored_range.hi
        return max(0, head - hi) - self.ahead.count(hi, head)

    def unscored(self, cursor: Cursor, history: bool) -> int:
        """Segments of the live edge that no job has yet; with `history`, of the whole retained
        log. At least 1 if the range has to be moved."""
        behind, before = self.unplanned(cursor)
        return self._count(behind) + (self._count(before) if history else 0)

    def _count(self, part: range) -> int:
        missing = len(part) - self.planned_ahead.count(part.start, part.stop)
        return max(missing, 1) if part else 0

    def unplanned(self, cursor: Cursor) -> tuple[range, range]:
        """The retained segments after the planned range, and before it."""
        first = cursor.first
        behind = range(max(self.planned.hi, first), cursor.head)
        return behind, range(first, max(self.planned.lo, first))

    def is_behind(self, head: int, first: int) -> bool:
        """Whether the range lacks any segment from `first` up to `head`."""
        return self.scored_range.hi < head or self.scored_range.lo > first

    def next_job(self, cursor: Cursor, limit: int, history: bool) -> "ScoringJob | None":
        """At most `limit` segments of the live edge; with `history`, candidates come before it
        and the log before the range comes after it. Marks them as planned; None if there are
        none."""
        behind, before = self.unplanned(cursor)
        if history and (candidates := self._pop_candidates(limit)):
            return self.plan(candidates, cursor)
        if behind:
            return self.plan(self._oldest(behind, limit), cursor)
        if history and before:
            return self.plan(self._newest(before, limit), cursor)
        return None

    def plan(self, indices: Sequence[int], cursor: Cursor) -> "ScoringJob":
        """A job for these segments, in the order of the log, which are in flight from now on. With
        it the range moves over all that are read next to it, and over those deleted from the log
        before they were."""
        seen, ahead = self.planned, self.planned_ahead
        ahead.add(indices)
        hi = ahead.end_of_run(min(max(seen.hi, cursor.first), cursor.head))
        lo = ahead.start_of_run(seen.lo)
        ahead.discard_between(lo, hi)
        self.planned = replace(seen, lo=lo, hi=hi)
        return ScoringJob(self, seen, lo, hi, indices)

    def note_written(self, job: "ScoringJob", reply: Extended) -> None:
        """The job's rows are in Redis, and the range has moved."""
        scored = self.scored_range
        scored.lo, scored.hi, scored.read, scored.skipped = job.lo, job.hi, *reply[1:]
        self.ahead.add(job.indices)
        self.ahead.discard_between(job.lo, job.hi)

    def note_refused(self) -> None:
        """A job was not written: forget those in flight, and have the question read again."""
        self.reset_plan()
        self.refused = True

    def _pop_candidates(self, limit: int) -> tuple[int, ...]:
        """At most `limit` candidates that no job has, in the order of the log."""
        popped = set[int]()
        while self.candidates and len(popped) < limit:
            index = self.candidates.popleft()
            if not (self.planned.lo <= index < self.planned.hi or index in self.planned_ahead):
                popped.add(index)
        return tuple(sorted(popped))

    def _oldest(self, part: range, limit: int) -> Sequence[int]:
        """At most `limit` segments of the part that no job has, the first ones."""
        ahead = self.planned_ahead
        if not ahead.count(part.start, part.stop):
            return part[:limit]
        found, index = list[int](), ahead.end_of_run(part.start)
        while index < part.stop and len(found) < limit:
            found.append(index)
            index = ahead.end_of_run(index + 1)
        return tuple(found)

    def _newest(self, part: range, limit: int) -> Sequence[int]:
        """At most `limit` segments of the part that no job has, the last ones."""
        ahead = self.planned_ahead
        if not ahead.count(part.start, part.stop):
            return part[-limit:]
        return tuple(reversed(ahead.newest_missing(part.start, part.stop, limit)))


@dataclass(slots=True)
class TrackedStream:
    """A stream as the scorer knows it. owned: this worker scores its live edge; waiters: how many
    queries wait for it here; questions: by their ids."""

    cursor: Cursor
    owned: bool = False
    waiters: int = 0
    questions: dict[str, TrackedQuestion] = field(default_factory=dict)

    def standing_questions(self) -> list[TrackedQuestion]:
        """The questions that do not expire."""
        return [q for q in self.questions.values() if q.record.is_standing]

    def update_questions(self, loaded: dict[str, TrackedQuestion]) -> None:
        """Replace the questions by those just read from Redis. One whose range has not changed
        keeps its jobs in flight, and every one keeps its candidates."""
        changed = {question.qid for question in self.changed(loaded)}
        for qid, question in loaded.items():
            known = self.questions.get(qid)
            if known and qid not in changed:
                known.record = question.record
                loaded[qid] = known
            elif known:
                question.candidates = known.candidates
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
    """Segments to score for a question.

    seen: the question's range once all jobs planned before this one are written; [lo, hi): once
    this one is. There may be no segments, if others were read before or are deleted.
    """

    question: TrackedQuestion
    seen: ScoredRange
    lo: int
    hi: int
    indices: Sequence[int]

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
    flag = flag_of(
        is_running_text=is_running_text(segment.text), is_smoothed=engine.is_smoothed(segment.text)
    )
    return pack_row(engine.relevance(features), flag, features)


def range_update(job: ScoringJob, rows: Mapping[int, bytes]) -> RangeUpdate:
    """The job's rows, by index, as a change of its range. Segments without one were deleted."""
    runs = [
        (span.start, b"".join(rows.get(index, SKIPPED_ROW) for index in span))
        for span in spans(job.indices)
    ]
    return RangeUpdate(job.stream, job.qid, job.seen, job.lo, job.hi, runs)
