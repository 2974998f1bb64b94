"""SearchRanking: merges what is found in the blocks of a log, the best segments first.

Each block is searched by itself, and words are rare or frequent in the whole log: so a block's hits
carry the weight of each word, and their scores follow from all blocks read so far. No I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream_app.scoring.term_counts import Terms, rarity, saturated
from xl3m_core import Segment
from xl3m_core.smoothing import is_running_text

Matrix = np.ndarray[Any, np.dtype[np.float64]]

SAMPLED_TEXTS = 25
"""Segments of a block that decide whether it is talk."""


@dataclass(frozen=True, slots=True)
class BlockHits:
    """What one block has of a question's terms. texts: segments read; containing: how many of them
    have each term (terms,); indices, weights: the best segments with the weight of each term in
    them (hits, terms); is_talk: whether most of the block is talk."""

    texts: int
    containing: "np.ndarray[Any, np.dtype[np.int64]]"
    indices: "np.ndarray[Any, np.dtype[np.int64]]"
    weights: Matrix
    is_talk: bool


def search_block(segments: Sequence[Segment], question: str, most: int) -> BlockHits:
    """The block's `most` best segments; fewer if fewer have any word of the question. Of equally
    good ones the latest comes first."""
    segments = segments[::-1]
    terms = Terms(question)
    counts = terms.counts([segment.text for segment in segments])
    weights = saturated(counts, [len(segment.text) for segment in segments])
    containing = np.count_nonzero(counts, axis=0)
    best = _best(weights @ rarity(containing, len(segments)), most)
    indices = np.array([segments[place].index for place in best], dtype=np.int64)
    sampled = segments[:: max(1, len(segments) // SAMPLED_TEXTS)]
    talk = sum(is_running_text(segment.text) for segment in sampled)
    return BlockHits(len(segments), containing, indices, weights[best], 2 * talk > len(sampled))


class SearchRanking:
    """The `most` best segments of all blocks added so far. is_talk: whether the newest block is
    talk; texts: segments searched."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.texts = 0
        self.is_talk = False
        self._containing: Any = 0
        self._indices = np.zeros(0, dtype=np.int64)
        self._weights: Matrix | None = None

    def add(self, hits: BlockHits) -> None:
        """Merge a block's hits."""
        self.is_talk = self.is_talk if self.texts else hits.is_talk
        self.texts += hits.texts
        self._containing = self._containing + hits.containing
        self._indices = np.concatenate([self._indices, hits.indices])
        old = hits.weights[:0] if self._weights is None else self._weights
        self._weights = np.concatenate([old, hits.weights])
        order = _best(self._weights @ rarity(self._containing, self.texts), self.most)
        self._indices, self._weights = self._indices[order], self._weights[order]

    def best(self) -> list[int]:
        """The segments, best first; of equally good ones that of the block added first."""
        best: list[int] = self._indices.tolist()
        return best


def _best(scores: "np.ndarray[Any, Any]", most: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """The places of the `most` best scores above zero, best first; of equal ones the first."""
    order = np.argsort(-scores, kind="stable")[:most]
    return order[scores[order] > 0]
