"""Pools: the segments of a text that are ranked, all of them or some.

A model of 135M parameters reads a long log in hours. A pool has the segments with evidence, the
best by BM25 for each question, and others at random. It is optimistic: what else would be ranked
before the evidence may not be in it. BM25's own best are all there, so BM25 gains nothing.
"""

import random
from collections.abc import Sequence
from itertools import chain

from benchmarks.accuracy.ranking.evidence import Evidence
from benchmarks.accuracy.ranking.rankers import Floats, order
from xl3m_core import Segment, Segmenter, Tail

BEST = 4
"""So many segments that BM25 ranks first for a question are in its text's pool."""
SEED = 0


def cut(text: str, segmenter: Segmenter) -> list[Segment]:
    """All segments of a text."""
    tail, segments = segmenter.push(Tail(), text)
    return segments + segmenter.flush(tail)


def pool(size: int | None, words: Floats, evidence: Sequence[Evidence]) -> list[int]:
    """The places of the segments to rank, in their order.

    size: of the pool, or None for all; it is larger if those with evidence and BM25's best are
    more. words: BM25's scores, (questions, segments).
    """
    every = range(words.shape[1])
    if size is None:
        return list(every)
    chosen = {place for each in evidence for place in chain.from_iterable(each.holders)}
    chosen.update(*(order(row)[:BEST] for row in words))
    others = [place for place in every if place not in chosen]
    fill = random.Random(SEED).sample(others, min(len(others), max(0, size - len(chosen))))
    return sorted(chosen.union(fill))
