"""What of the evidence an order of segments finds, and what the best choice could find."""

import random
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from benchmarks.accuracy.ranking.evidence import Evidence, Mask
from benchmarks.accuracy.ranking.pools import pool
from xl3m_core import Segment

KS = (1, 2, 3, 5)


def segments(*borders: tuple[int, int]) -> list[Segment]:
    return [Segment(i, "x" * (b - a), a, b, a, b) for i, (a, b) in enumerate(borders)]


def drawn(seed: int) -> tuple[Mask, list[Segment]]:
    """Overlapping segments, and evidence of several spans."""
    rng = random.Random(seed)
    starts = sorted(rng.sample(range(1, 90), 8))
    ends = [*(min(100, start + rng.randrange(8)) for start in starts), 100]
    borders = list(zip([0, *starts], sorted(ends), strict=True))
    return np.array([rng.random() < 0.3 for _ in range(100)]), segments(*borders)


def by_character(mask: Mask, chosen: Sequence[Segment]) -> float:
    """The share of the evidence in these segments, character by character."""
    seen = np.zeros(len(mask), dtype=bool)
    for segment in chosen:
        seen[segment.start : segment.end] = True
    return float((mask & seen).sum() / mask.sum())


def test_evidence_over_two_segments_is_found_in_parts() -> None:
    mask = np.array([False] * 3 + [True] * 2 + [False] * 7)
    evidence = Evidence.of(mask, segments((0, 4), (4, 8), (8, 12)))
    assert evidence.ranks([1, 2, 0]) == [2, 0]
    assert evidence.shares([1, 2, 0], (1, 2, 3)) == [0.5, 0.5, 1]


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_those_counted_character_by_character(seed: int) -> None:
    mask, cut = drawn(seed)
    order = random.Random(seed).sample(range(len(cut)), len(cut))
    shares = Evidence.of(mask, cut).shares(order, KS)
    assert shares == pytest.approx([by_character(mask, [cut[i] for i in order[:k]]) for k in KS])


@pytest.mark.parametrize("seed", range(20))
def test_the_best_share_is_the_best_of_all_choices(seed: int) -> None:
    mask, cut = drawn(seed)
    for k in KS:
        best = max(by_character(mask, chosen) for chosen in combinations(cut, k))
        assert Evidence.of(mask, cut).best_share(k) == pytest.approx(best)


def test_evidence_outside_all_segments_is_never_found() -> None:
    evidence = Evidence.of(np.ones(8, dtype=bool), segments((0, 4)))
    assert evidence.shares([0], (1, 9)) == [0.5, 0.5]
    assert evidence.best_share(3) == 0.5


def test_a_pool_holds_the_evidence_and_the_best_by_words_in_order() -> None:
    mask = np.zeros(400, dtype=bool)
    mask[33:36] = True
    cut = segments(*((i, i + 4) for i in range(0, 400, 4)))
    words = np.array([[0.0] * 95 + [1, 2, 3, 4, 5]])
    chosen = pool(20, words, [Evidence.of(mask, cut)])
    assert {8, 96, 97, 98, 99} <= set(chosen)
    assert (len(chosen), chosen) == (20, sorted(chosen))
    assert chosen == pool(20, words, [Evidence.of(mask, cut)])
    assert pool(None, words, []) == list(range(100))
