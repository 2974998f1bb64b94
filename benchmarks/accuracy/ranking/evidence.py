"""Evidence: the annotated parts of a text that answer a question, and which segments hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np

from xl3m_core import Segment

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one question, cut into pieces at the borders of segments.

    sizes: of each piece, in characters; holders: of each piece, the places of the segments that
    hold it, none if it lies outside them all; segments: how many there are.
    """

    sizes: tuple[int, ...]
    holders: tuple[tuple[int, ...], ...]
    segments: int

    @classmethod
    def of(cls, mask: Mask, segments: Sequence[Segment]) -> Self:
        """mask: whether each character of the text is evidence; segments: in their order."""
        starts = np.array([segment.start for segment in segments])
        ends = np.array([segment.end for segment in segments])
        changes = np.flatnonzero(np.diff(mask, prepend=False, append=False))
        edges = np.unique(np.concatenate([changes, starts, ends]))
        pieces = [(a, b) for a, b in pairwise(edges) if mask[a]]
        holders = [tuple(np.flatnonzero((starts <= a) & (ends >= b)).tolist()) for a, b in pieces]
        return cls(tuple(int(b - a) for a, b in pieces), tuple(holders), len(segments))

    def ranks(self, order: Sequence[int]) -> list[int]:
        """The rank, from 0, of the first segment in that order that holds each piece; the number
        of segments for a piece that none holds."""
        rank = {place: i for i, place in enumerate(order)}
        last = self.segments
        return [
            min((rank.get(place, last) for place in held), default=last) for held in self.holders
        ]

    def shares(self, order: Sequence[int], ks: Sequence[int]) -> list[float]:
        """For each k, the share of the evidence, in characters, in the first k of that order."""
        ranks, sizes = np.array(self.ranks(order)), np.array(self.sizes)
        found = [ranks < min(k, self.segments) for k in ks]
        return [float(sizes[each].sum() / sizes.sum()) for each in found]

    def best_share(self, k: int) -> float:
        """The largest share that any k segments hold.

        Segments begin and end in one order, so of those chosen only two in a row overlap: the best
        of each number that end with each segment follow from the best of one fewer.
        """
        useful = sorted({place for held in self.holders for place in held})
        if not useful:
            return 0.0
        both = self._shared(useful)
        own = np.diag(both)
        follows = np.triu(np.ones(both.shape, dtype=bool), 1)
        best = own
        for _ in range(min(k, len(useful)) - 1):
            longer = np.where(follows, best[:, None] + own - both, 0).max(0)
            best = np.maximum(best, longer)
        return float(best.max() / sum(self.sizes))

    def _shared(self, places: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """How many characters of the evidence each two of these segments both hold; on the
        diagonal, each alone."""
        column = {place: i for i, place in enumerate(places)}
        shared = np.zeros((len(places), len(places)), dtype=np.int64)
        for size, held in zip(self.sizes, self.holders, strict=True):
            columns = [column[place] for place in held]
            shared[np.ix_(columns, columns)] += size
        return shared
