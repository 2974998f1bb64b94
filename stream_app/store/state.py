"""State: the values that make up a stream, the changes to them, and the errors of a change.

A change names the state that it starts from, and is refused if that is not the state in Redis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from stream_app.settings.variables import variable
from stream_app.store.rows import Rows
from xl3m_core import Segment, Tail

NO_LIMIT = 1 << 40

ANY_REDIS = ""
"""In place of a run id: write to any Redis process. A restarted Redis has another run id and may
have lost its last writes, so writes that name the old one are refused with RestartedError."""


@dataclass(frozen=True, slots=True)
class Retention:
    """The maximum size of each stream's log, in segments and in bytes."""

    segments: int = NO_LIMIT
    bytes: int = NO_LIMIT


UNLIMITED = Retention()


class LimitError(RuntimeError):
    """A limit is reached. The message names the setting and is sent to the client."""


class FencedError(RuntimeError):
    """The partition has a later owner: this worker is a zombie and must stop."""

    @classmethod
    def of(cls, partition: str, epoch: int) -> Self:
        """The error of an owner with this epoch."""
        return cls(f"{partition} has a later owner than epoch {epoch}")


class LostWritesError(RuntimeError):
    """Redis has lost writes that it confirmed: this worker must stop. Its successor reads them
    again from Kafka."""


class RestartedError(RuntimeError):
    """Redis was restarted since this worker last compared its positions with it, and may have lost
    its last writes: compare them again before the next write."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a stream is read.

    version: of the stream, incremented by every commit; head: index of the next segment; first:
    index of the oldest retained segment; gaps: missing offsets; questions: version of the
    questions; next: the next offset to be read by topic/partition; rebuilt: how often the log was
    rebuilt; cuts: how segments were cut, by the index of the first one that was cut so."""

    version: int = 0
    head: int = 0
    first: int = 0
    gaps: int = 0
    questions: int = 0
    next: dict[str, int] = field(default_factory=dict)
    rebuilt: int = 0
    cuts: dict[int, int] = field(default_factory=dict)

    @property
    def cut(self) -> int:
        """How the last segments were cut, see `ingest.segmentation`; 0 if that was not noted."""
        return self.cuts[max(self.cuts)] if self.cuts else 0


@dataclass(frozen=True, slots=True)
class State:
    """A stream after a commit, from which the next commit starts."""

    cursor: Cursor = field(default_factory=Cursor)
    tail: Tail = field(default_factory=Tail)


@dataclass(frozen=True, slots=True)
class Commit:
    """Text of one stream that was read from one partition, to be written in one step. base: the
    state that it starts from; segments, tail: the new ones; epoch: of the partition's owner;
    next_offset: the first offset that was not read; gaps: missing offsets; cut: how segments are
    cut, 0 if unknown."""

    stream: str
    base: State
    segments: Sequence[Segment]
    tail: Tail
    partition: str
    epoch: int
    next_offset: int
    gaps: int = 0
    cut: int = 0

    @property
    def new_cut(self) -> int:
        """How the segments are cut, if the last ones were cut in another way; else 0."""
        return self.cut if self.cut != self.base.cursor.cut else 0


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit was written; state: the stream's new state."""

    state: State


@dataclass(frozen=True, slots=True)
class Conflict:
    """A commit was refused: the stream has another version than its base. Another worker has
    written it, or an earlier try of this commit whose reply was lost."""


class PositionUpdate(NamedTuple):
    """A partition's position, moved by its owner. old: where the owner left it, None if nothing was
    read yet; gap: missing offsets before the new one that no stream has counted yet."""

    partition: str
    epoch: int
    old: int | None
    new: int
    gap: int = 0


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """A question of a stream. expires_at: when it and its scores are deleted; 0: it is a standing
    question, which stays. Times are seconds by Redis' clock, which all workers share."""

    question: str
    expires_at: float = 0.0
    set_at: float = 0.0

    @property
    def is_standing(self) -> bool:
        """Whether the question stays until it is replaced or ended."""
        return not self.expires_at


@dataclass(slots=True)
class ScoredRange:
    """What is scored of the log for a question: the part [lo, hi), and single segments beyond it.

    skipped: segments of [lo, hi) that were deleted before they were read; rebuilt: how often the
    range was reset with its log, so that no row of an earlier log is written to it; read: segments
    that were read, by default all of [lo, hi) but the skipped ones."""

    lo: int
    hi: int
    skipped: int = 0
    rebuilt: int = 0
    read: int = -1

    def __post_init__(self) -> None:
        if self.read < 0:
            self.read = self.hi - self.lo - self.skipped

    @property
    def scattered(self) -> int:
        """How many segments outside [lo, hi) were read."""
        return self.read - (self.hi - self.lo - self.skipped)

    def coverage(self, head: int, tail: int = 0) -> float:
        """The share of all segments ever that was read. tail: scored segments after the head."""
        return (self.read + tail) / max(1, head + tail)


@dataclass(frozen=True, slots=True)
class Edge:
    """The first or the last segments of a log, whose final scores may not be settled yet. rows:
    theirs and those of their neighbours; segments: those of them that are smoothed."""

    rows: Rows
    segments: list[Segment]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A stream, a question's range and its top-k as of one instant; the most certain segment is
    first. The top-k is that of the settled segments; edges: the others, if the range covers the
    log, the last one the end of the log; see `ranking`. k: the top-k's size, 0 before any write."""

    state: State
    scored_range: ScoredRange
    top: list[tuple[Segment, float]]
    edges: Sequence[Edge] = ()
    k: int = 0

    def coverage(self, tail: int) -> float:
        """The share of the stream that was read. tail: scored segments of its tail."""
        return self.scored_range.coverage(self.state.cursor.head, tail)


@dataclass(frozen=True, slots=True)
class QueryView:
    """A stream and one of its questions as of one instant. qid: the question's id, '' if the stream
    has no standing question; record: None if the stream does not have the question; snapshot: None
    if the question has no range; now: the time by Redis' clock."""

    state: State
    now: float
    qid: str
    record: QuestionRecord | None
    snapshot: Snapshot | None

    @property
    def is_covered(self) -> bool:
        """Whether the stream has the question, and its range covers the retained log."""
        if self.record is None or self.snapshot is None:
            return False
        cursor, scored = self.state.cursor, self.snapshot.scored_range
        return scored.hi >= cursor.head and scored.lo <= cursor.first


def current_question(records: Mapping[str, QuestionRecord]) -> str | None:
    """The text of the standing question that was set last; None without one."""
    standing = [record for record in records.values() if record.is_standing]
    return max(standing, key=lambda record: record.set_at).question if standing else None


def has_expired(record: QuestionRecord, now: float) -> bool:
    """Whether the question's scores are deleted; now: seconds by Redis' clock."""
    return 0 < record.expires_at < now


def too_many_streams(stream: str, limit: int) -> str:
    """The reason why a new stream is rejected."""
    return (
        f"stream {stream!r} would be one more than {limit}; {variable('max_streams')} sets how many"
    )


def too_many_questions(limit: int) -> str:
    """The reason why a standing question is rejected."""
    return (
        f"the stream has {limit} standing questions, and may have no more: end them first, or set "
        f"this one in their place; {variable('max_standing_questions')} sets how many"
    )


def too_many_queries(limit: int) -> str:
    """The reason why a query is rejected."""
    return f"too many queries wait, {limit} of them: ask again later"
