"""State: the values that make up a stream, the changes to them, and the errors of a change.

A change names the state that it starts from, and is refused if that is not the state in Redis.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Self

from stream_app.settings.variables import variable
from stream_app.store import keys as layout
from stream_app.store.keys import Keys
from stream_app.store.scripts import Call
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
    """The part [lo, hi) of the log that is scored for a question. skipped: segments of it that were
    deleted before they could be scored; rebuilt: how often it was reset with its log, so that no
    score of an earlier log is written to it."""

    lo: int
    hi: int
    skipped: int = 0
    rebuilt: int = 0

    def coverage(self, head: int, tail: int = 0) -> float:
        """The scored share of all segments ever. tail: scored segments after the head."""
        return (self.hi - self.lo - self.skipped + tail) / max(1, head + tail)


@dataclass(frozen=True, slots=True)
class RangeUpdate:
    """Scores that turn a question's range `seen` into [lo, hi).

    scores: (index, float32 scores of the segments from there on) for each run of segments; best:
    (index, score) of those that may enter the top-k; skipped: segments that were deleted before
    they could be scored; first: index of the log's first segment; scores of earlier segments are
    not kept."""

    stream: str
    qid: str
    seen: ScoredRange
    lo: int
    hi: int
    scores: Sequence[tuple[int, bytes]]
    best: Sequence[tuple[int, float]]
    skipped: int = 0
    first: int = 0

    def as_script_call(self, keys: Keys, k: int) -> Call:
        """The arguments of extend_range.lua. k: size of the top-k."""
        question = (keys.scored_range, keys.top, keys.text)
        names = [name(self.stream, self.qid) for name in question]
        names += [keys.cursor(self.stream), keys.log(self.stream)]
        blocks = [block for start, scores in self.scores for block in _blocks(start, scores)]
        names += [keys.scores(self.stream, self.qid, block) for block, _, _ in blocks]
        return names, {
            "seen": (self.seen.lo, self.seen.hi, self.seen.rebuilt),
            "lo": self.lo,
            "hi": self.hi,
            "skipped": self.skipped,
            "k": k,
            "candidates": self.best,
            "blocks": [(offset, scores) for _, offset, scores in blocks],
        }

    def expired_block(self, keys: Keys) -> str | None:
        """The key of the last block of scores before the log's first segment. Earlier blocks were
        deleted by earlier updates: a log loses less than a block between two updates."""
        block = self.first // layout.SCORES_PER_BLOCK - 1
        return keys.scores(self.stream, self.qid, block) if block >= 0 else None


def _blocks(start: int, scores: bytes) -> list[tuple[int, int, bytes]]:
    """The scores from segment `start` on, by block: (block, byte offset in it, bytes)."""
    size = layout.SCORES_PER_BLOCK * layout.SCORE_BYTES
    at, blocks = start * layout.SCORE_BYTES, []
    while scores:
        room = size - at % size
        blocks.append((at // size, at % size, scores[:room]))
        at, scores = at + room, scores[room:]
    return blocks


def spans(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending indices as contiguous ranges [lo, hi)."""
    found = list[tuple[int, int]]()
    for index in indices:
        if found and found[-1][1] == index:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return found


class RangeResult(Enum):
    """The result of a RangeUpdate."""

    TOP_CHANGED = "top_changed"
    """It was written, and the top-k has other segments or scores."""
    EXTENDED = "extended"
    """It was written, and the top-k is unchanged."""
    CONFLICT = "conflict"
    """It was refused: the range has changed since it was read, or Redis has lost segments."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A stream, a question's range and its top-k as of one instant; the most certain segment is
    first."""

    state: State
    scored_range: ScoredRange
    top: list[tuple[Segment, float]]

    def coverage(self, tail: int) -> float:
        """The scored share of the stream. tail: scored segments of its tail."""
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
