"""RangeUpdate: rows of a question's segments, and how far its scored range then reaches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from stream_app.store.keys import Keys
from stream_app.store.rows import row_arguments
from stream_app.store.scripts import Call
from stream_app.store.state import ScoredRange

Run = tuple[int, bytes]
"""The index of the first of some consecutive segments, and their rows."""


@dataclass(frozen=True, slots=True)
class RangeUpdate:
    """Rows of a question's segments, anywhere in the log, that turn its range `seen` into [lo, hi).
    Every segment in between that the log still has must be read: by one of the runs, or before."""

    stream: str
    qid: str
    seen: ScoredRange
    lo: int
    hi: int
    runs: Sequence[Run]

    def as_script_call(self, keys: Keys, k: int) -> Call:
        """The arguments of extend_range.lua. k: size of the top-k."""
        question = (keys.scored_range, keys.top, keys.text)
        names = [name(self.stream, self.qid) for name in question]
        names += [keys.cursor(self.stream), keys.log(self.stream)]
        names += [keys.all_rows(self.stream, self.qid)]
        return names, {
            **row_arguments(),
            "seen": (self.seen.lo, self.seen.hi, self.seen.rebuilt),
            "lo": self.lo,
            "hi": self.hi,
            "k": k,
            "runs": self.runs,
        }


def spans(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending indices as contiguous ranges [lo, hi)."""
    if isinstance(indices, range):
        return [(indices.start, indices.stop)] if indices else []
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
    """It was refused: the range has changed since it was read, or Redis has lost segments or rows.
    Rows may have been written."""


class Extended(NamedTuple):
    """The reply to a RangeUpdate. read, skipped: of the range after it, 0 if it was refused."""

    result: RangeResult
    read: int = 0
    skipped: int = 0
