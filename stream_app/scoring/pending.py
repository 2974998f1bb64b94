"""PendingSegments: unread segments that hold words of a question, the most promising first."""

from bisect import insort
from collections.abc import Iterable, Iterator

from stream_app.scoring.index_set import IndexSet

MAX_PENDING = 10_000
"""Of one question; about a megabyte."""


class PendingSegments:
    """Unread segments of one question with their lexical scores. At most MAX_PENDING are kept, or
    fewer: beyond that the least promising ones are dropped. These are still unread, and are read in
    the order of the log.

    matched: the segments whose score was computed, kept or not.
    """

    def __init__(self) -> None:
        self.matched = IndexSet()
        self._sorted: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def __iter__(self) -> Iterator[int]:
        """The segments, the most promising first; of equal ones the newest first."""
        return (index for _, index in reversed(self._sorted))

    def add(self, scores: Iterable[tuple[int, float]], most: int = MAX_PENDING) -> None:
        """Note each (index, lexical score); those without a word of the question are dropped, and
        all but the `most` best."""
        scores = [*scores]
        self.matched.add(index for index, _ in scores)
        for index, score in scores:
            if score > 0:
                insort(self._sorted, (score, index))
        del self._sorted[: max(0, len(self._sorted) - most)]

    def pop(self) -> int | None:
        """Take out the most promising segment; None if there is none."""
        return self._sorted.pop()[1] if self._sorted else None

    def drop_before(self, first: int) -> None:
        """Forget the segments before `first`."""
        if first > self.matched.base:
            self.matched.discard_between(0, first)
            self._sorted = [entry for entry in self._sorted if entry[1] >= first]
