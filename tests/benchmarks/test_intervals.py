"""Intervals and paired tests of means over questions in clusters."""

import random
from itertools import product

import numpy as np
import pytest

from benchmarks.harness.intervals import interval, p_value, paired

ALONE = list(range(40))


def drawn(seed: int, mean: float = 0.0) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(mean, 1) for _ in ALONE]


def test_a_bootstrap_interval_is_that_of_the_normal_distribution() -> None:
    values = drawn(1)
    low, high = interval(values, ALONE)
    error = np.std(values) / len(values) ** 0.5
    assert low == pytest.approx(np.mean(values) - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(np.mean(values) + 1.96 * error, abs=0.1 * error)


def test_copies_of_a_question_in_one_document_tell_nothing_new() -> None:
    values = drawn(2)
    copies, documents = [v for v in values for _ in range(5)], [i for i in ALONE for _ in range(5)]
    assert interval(copies, documents) == pytest.approx(interval(values, ALONE))
    assert p_value(copies, documents) == p_value(values, ALONE)


def test_documents_count_by_their_questions() -> None:
    low, high = interval([0.0] * 9 + [1.0], [0] * 9 + [1])
    assert (low, high) == (0, 1)
    assert paired([1.0] * 9 + [0.0], [0.0] * 10, [0] * 9 + [1]).difference == pytest.approx(0.9)


def test_the_p_value_is_the_share_of_all_signs() -> None:
    differences = [0.5, -0.2, 0.9, 0.4, 0.0, 0.3, 0.1]
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True))
            for signs in product((-1, 1), repeat=len(differences))]  # fmt: skip
    exact = np.mean([abs(each) >= sum(differences) - 1e-9 for each in sums])
    assert p_value(differences, range(len(differences))) == pytest.approx(exact, abs=0.01)


def test_pairing_sees_a_small_difference_between_much_alike() -> None:
    theirs = [10 * value for value in drawn(3)]
    ours = [value + 0.1 * noise + 0.2 for value, noise in zip(theirs, drawn(4), strict=True)]
    found = paired(ours, theirs, ALONE)
    assert found.p < 0.001
    assert 0 < found.low < found.difference < found.high
    other = paired(theirs, ours, ALONE)
    assert (other.difference, other.p) == (-found.difference, found.p)


def test_no_difference_is_no_evidence() -> None:
    values = drawn(5)
    assert paired(values, values, ALONE) == (0, 0, 0, 1)


def test_the_same_values_give_the_same_figures() -> None:
    assert paired(drawn(6), drawn(7), ALONE) == paired(drawn(6), drawn(7), ALONE)
