"""TopK: the k most certain segments seen so far, whatever order they came in.

Knows scores and indices; what they point to is the caller's.
"""

import heapq
import math


class TopK:
    """The k best of a stream of (index, score); of equal scores the earlier index stays."""

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        self.k = k
        self._heap: list[tuple[float, int]] = []

    def add(self, index: int, score: float) -> int | None:
        """Take a segment in; returns the index that is out for it (its own, if it is not in).

        A score of -inf (or NaN) says that nothing is known, and is never among the best.
        """
        if not score > -math.inf:
            return index
        if len(self._heap) < self.k:
            heapq.heappush(self._heap, (score, -index))
            return None
        return -heapq.heappushpop(self._heap, (score, -index))[1]

    def best(self) -> list[tuple[int, float]]:
        """(index, score) pairs, the most certain first."""
        return [(-index, score) for score, index in sorted(self._heap, reverse=True)]
