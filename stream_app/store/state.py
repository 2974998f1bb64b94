"""The values that make up a stream's state, and the steps that change it.

A step names the state it starts from. Knows what there is to know of a stream; not where
it is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from xl3m_core import Segment, Tail

NO_LIMIT = 1 << 40

ANY_REDIS = ""
"""In place of the run id of the Redis process that may be written to. A Redis that was started
again has another id and may have lost its last writes: it refuses with a RestartedError."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of each stream's log is kept: at most so many segments, and bytes of them."""

    segments: int = NO_LIMIT
    bytes: int = NO_LIMIT


UNLIMITED = Retention()


class FencedError(RuntimeError):
    """A later owner of the partition has written: this worker is a zombie and must stop."""

    @classmethod
    def of(cls, partition: str, epoch: int) -> Self:
        """Whose epoch it is that came too late."""
        return cls(f"{partition} has a later owner than epoch {epoch}")


class LostWritesError(RuntimeError):
    """Redis no longer has what it said it had: this worker must stop and start over from there."""


class RestartedError(RuntimeError):
    """Redis is not the process it was when this worker last held its positions against it: it may
    have lost its last writes, so nothing is written before they were held against it again."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a stream stands. head: segments ever; first: oldest retained; next: offsets by
    topic/partition; gaps: offsets that never came; questions: version of the questions; rebuilt:
    how often its log was begun anew; cuts: how segments were cut, by the first one cut so."""

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
        """How the last segments were cut; see `cuts.Cut`. 0 if nobody noted it."""
        return self.cuts[max(self.cuts)] if self.cuts else 0


@dataclass(frozen=True, slots=True)
class State:
    """A stream as one commit left it: the next commit starts from here."""

    cursor: Cursor = field(default_factory=Cursor)
    tail: Tail = field(default_factory=Tail)


@dataclass(frozen=True, slots=True)
class Commit:
    """One stream's share of a batch, to be written in one step. cut: how its segments are cut, 0
    if nobody says."""

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
        """How they are cut, if that is not how the last ones were; else 0."""
        return self.cut if self.cut != self.base.cursor.cut else 0


class PositionUpdate(NamedTuple):
    """A partition's position, moved by its owner; old: where the owner left it (None: nowhere yet);
    gap: offsets missing before the new one that no stream has counted yet."""

    partition: str
    epoch: int
    old: int | None
    new: int
    gap: int = 0


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """A question of a stream; until: when its scores go (0: it is current and stays). Times are by
    Redis' clock, which all workers share."""

    question: str
    expires_at: float = 0.0
    set_at: float = 0.0

    @property
    def is_standing(self) -> bool:
        """Whether the question stays until it is replaced or ended."""
        return not self.expires_at


@dataclass(slots=True)
class ScoredRange:
    """The part [lo, hi) of the log that is scored; `skipped` of it were gone before they were.
    rebuilt: how often it was begun anew with its log, so that no score of an older one gets in."""

    lo: int
    hi: int
    skipped: int = 0
    rebuilt: int = 0

    def coverage(self, head: int, tail: int = 0) -> float:
        """The share of all segments ever, `tail` scored ones behind the head included."""
        return (self.hi - self.lo - self.skipped + tail) / max(1, head + tail)


@dataclass(frozen=True, slots=True)
class RangeUpdate:
    """Scores of segments `start` and on, which turn `seen` into [lo, hi); best: candidates; first:
    where the log begins, before which no score is kept."""

    stream: str
    qid: str
    seen: ScoredRange
    lo: int
    hi: int
    start: int
    scores: bytes
    best: Sequence[tuple[Segment, float]]
    skipped: int = 0
    first: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a query needs, as of one instant: `top` has the most certain first."""

    state: State
    scored_range: ScoredRange
    top: list[tuple[Segment, float]]

    def coverage(self, tail: int) -> float:
        """The share of the stream that was scored, when so many segments of its tail were."""
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


def current_question(asked: Mapping[str, QuestionRecord]) -> str | None:
    """Of a stream's questions the current one that was set last."""
    current = [a for a in asked.values() if not a.expires_at]
    return max(current, key=lambda a: a.set_at).question if current else None


def has_expired(asked: QuestionRecord, now: float) -> bool:
    """Whether its scores have gone; now: by Redis' clock."""
    return 0 < asked.expires_at < now
