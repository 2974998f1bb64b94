"""TopK: the k most certain segments so far; the result does not depend on their order."""

import heapq
import math


class TopK:
    """The k best of a stream of (index, score); of equal scores the lower index is kept."""

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        self.k = k
        self._heap: list[tuple[float, int]] = []

    def add(self, index: int, score: float) -> int | None:
        """Add a segment; returns the index that is dropped for it (its own if it is not kept).

        A score of -inf or NaN means that nothing is known; it is never kept.
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
