"""Intervals and tests of means over questions.

Questions about one document are not independent of each other: what is drawn anew, or changes its
sign, is a cluster, here a document with all of its questions. Each function draws with a fixed
seed, so the same values give the same result.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]

DRAWS = 10_000
SEED = 0


class Paired(NamedTuple):
    """The mean of the differences, its 95 % interval, and the p value of there being none."""

    difference: float
    low: float
    high: float
    p: float


def interval(values: Sequence[float], clusters: Sequence[int]) -> tuple[float, float]:
    """The 95 % interval of the mean, by the percentiles of a bootstrap over the clusters.

    values: one a question; clusters: the number of each question's cluster. Without a second
    cluster the interval is the mean itself, which says nothing.
    """
    sums, sizes = _by_cluster(values, clusters)
    drawn = np.random.default_rng(SEED).integers(0, len(sums), (DRAWS, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / sizes[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)


def paired(ours: Sequence[float], theirs: Sequence[float], clusters: Sequence[int]) -> Paired:
    """Two rankers on the same questions: ours less theirs."""
    differences = np.subtract(ours, theirs)
    low, high = interval(differences.tolist(), clusters)
    return Paired(float(differences.mean()), low, high, p_value(differences.tolist(), clusters))


def p_value(differences: Sequence[float], clusters: Sequence[int]) -> float:
    """How often the mean difference would be as far from 0, or farther, if each cluster's could as
    well have had the other sign: a two-sided permutation test."""
    sums, _ = _by_cluster(differences, clusters)
    signs = np.random.default_rng(SEED).choice([-1.0, 1.0], (DRAWS, len(sums)))
    far = np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9
    return float((1 + far.sum()) / (1 + DRAWS))


def _by_cluster(values: Sequence[float], clusters: Sequence[int]) -> tuple[Floats, Floats]:
    """The sum of the values and the number of questions of each cluster."""
    _, places = np.unique(clusters, return_inverse=True)
    sums = np.bincount(places, values).astype(np.float64)
    return sums, np.bincount(places).astype(np.float64)
