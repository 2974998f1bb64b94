"""What the scorer knows of a stream and its questions, and the jobs it makes of what is unscored.

`TrackedQuestion.next_job` marks the job's segments as planned, so that the next call continues
after them. `range_update` turns a job's scores into a change of the question's range. No I/O.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from stream_app.store.state import Cursor, QuestionRecord, RangeUpdate, ScoredRange
from xl3m_core import Segment, TopK

NAN = float("nan")


@dataclass(slots=True)
class TrackedQuestion:
    """A question of a stream and its scored range.

    planned: the range once every job in flight is written. candidates: segments to score before
    the rest of the history, the most promising first.
    """

    stream: str
    qid: str
    record: QuestionRecord
    scored_range: ScoredRange
    planned: ScoredRange = field(init=False)
    candidates: deque[int] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.reset_plan()

    def reset_plan(self) -> None:
        """Forget the jobs in flight: the next ones start from the scored range."""
        self.planned = replace(self.scored_range)

    def unscored(self, cursor: Cursor, history: bool) -> int:
        """Segments of the live edge that no job has yet; with `history`, of the whole retained
        log."""
        before = max(0, self.planned.lo - cursor.first) if history else 0
        return max(0, cursor.head - self.planned.hi) + before

    def unplanned(self, cursor: Cursor) -> tuple[range, range]:
        """The retained segments that no job has yet: after the planned range, and before it."""
        first = cursor.first
        behind = range(max(self.planned.hi, first), cursor.head)
        return behind, range(first, max(self.planned.lo, first))

    def is_behind(self, head: int, first: int) -> bool:
        """Whether any segment from `first` up to `head` is unscored."""
        return self.scored_range.hi < head or self.scored_range.lo > first

    def next_job(self, cursor: Cursor, limit: int, history: bool) -> "ScoringJob | None":
        """At most `limit` segments of the live edge; with `history`, candidates come before it
        and the log before the range comes after it. Marks them as planned; None if there are
        none."""
        seen = self.planned
        if history and (candidates := self._pop_candidates(limit)):
            return ScoringJob(self, seen, seen.hi, seen.hi, candidates)
        if seen.hi < cursor.head:
            hi = min(max(seen.hi, cursor.first) + limit, cursor.head)
            self.planned = replace(seen, hi=hi)
            return ScoringJob(self, seen, seen.hi, hi)
        if history and seen.lo > cursor.first:
            lo = max(cursor.first, seen.lo - limit)
            self.planned = replace(seen, lo=lo)
            return ScoringJob(self, seen, lo, seen.lo)
        return None

    def _pop_candidates(self, limit: int) -> tuple[int, ...]:
        """At most `limit` candidates outside the planned range, in the order of the log."""
        popped = list[int]()
        while self.candidates and len(popped) < limit:
            if not self.planned.lo <= (index := self.candidates.popleft()) < self.planned.hi:
                popped.append(index)
        return tuple(sorted(popped))


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
        for qid, question in loaded.items():
            known = self.questions.get(qid)
            if known and known.scored_range == question.scored_range:
                known.record = question.record
                loaded[qid] = known
            elif known:
                question.candidates = known.candidates
        self.questions = loaded

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
    """Segments [lo, hi) to score for a question, or `candidates`, which leave its range as it is.

    seen: the question's range once all jobs planned before this one are written.
    """

    question: TrackedQuestion
    seen: ScoredRange
    lo: int
    hi: int
    candidates: tuple[int, ...] = ()

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self.question.stream

    @property
    def qid(self) -> str:
        """The question's id."""
        return self.question.qid

    @property
    def indices(self) -> Sequence[int]:
        """The segments to score."""
        return self.candidates or range(self.lo, self.hi)


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


def range_update(
    job: ScoringJob, scores: dict[Segment, float], k: int, first: int = 0
) -> RangeUpdate:
    """The job's scores as a change of its range. Segments that are no longer in the log, which
    starts at `first`, count as skipped and score NaN."""
    by_index = {segment.index: score for segment, score in scores.items()}
    top = TopK(k)
    for index, score in by_index.items():
        top.add(index, score)
    return RangeUpdate(
        stream=job.stream,
        qid=job.qid,
        seen=job.seen,
        lo=min(job.seen.lo, job.lo),
        hi=max(job.seen.hi, job.hi),
        start=job.lo,
        scores=array("f", [by_index.get(i, NAN) for i in range(job.lo, job.hi)]).tobytes(),
        best=top.best(),
        skipped=0 if job.candidates else (job.hi - job.lo) - len(scores),
        first=first,
    )
