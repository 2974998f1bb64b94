"""PendingSegments: unread segments that hold words of a question, the most promising first."""

from bisect import insort
from collections.abc import Callable, Iterable, Iterator

from stream_app.scoring.index_set import IndexSet

MAX_PENDING = 10_000
"""Of one question; about a megabyte."""


class PendingSegments:
    """Unread segments of one question with their lexical scores. At most MAX_PENDING are kept, or
    fewer: beyond that the least promising ones are dropped. These are still unread, and are read in
    the order of the log.

    matched: the segments whose lexical score was computed, kept or not.
    """

    def __init__(self) -> None:
        self.matched = IndexSet()
        self._sorted: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, scores: Iterable[tuple[int, float]], most: int = MAX_PENDING) -> None:
        """Note each (index, lexical score); those without a word of the question are dropped, and
        all but the `most` best. Of equal ones the newest are better."""
        scores = [*scores]
        self.matched.add(index for index, _ in scores)
        for index, score in scores:
            if score > 0:
                insort(self._sorted, (score, index))
        del self._sorted[: max(0, len(self._sorted) - most)]

    def best(self, is_unread: Callable[[int], bool]) -> Iterator[int]:
        """The segments that are still unread, the most promising first. Those before the first of
        them are forgotten."""
        while self._sorted and not is_unread(self._sorted[-1][1]):
            self._sorted.pop()
        for _, index in reversed(self._sorted):
            if is_unread(index):
                yield index

    def forget_before(self, first: int) -> None:
        """Segments before `first` need no lexical score any more."""
        if first > self.matched.base:
            self.matched.discard_between(0, first)
