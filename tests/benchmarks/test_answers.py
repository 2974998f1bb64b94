"""The benchmark of answers: what counts as right, its interval and its paired test."""

import math

import pytest

from benchmarks.accuracy.answers import is_right, mcnemar, wilson


def test_the_given_answer_must_stand_in_the_text_as_whole_words() -> None:
    assert is_right("It is 24.0 (stage).", "24.0") and is_right("/10.0.0.7:50010", "10.0.0.7")
    assert not is_right("124.0", "24.0") and not is_right("", "24.0")


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(0, 10, 0.0, 0.278), (5, 10, 0.237, 0.763)]
)
def test_the_interval_is_wilsons(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-3)


def test_the_paired_test_is_exact_and_has_two_sides() -> None:
    pairs = [(True, False)] * 8 + [(False, True)] + [(True, True)] * 50
    expected = 2 * (math.comb(9, 0) + math.comb(9, 1)) / 2**9
    assert mcnemar(pairs) == pytest.approx(expected) == mcnemar([(b, a) for a, b in pairs])
    assert mcnemar([(True, True), (False, False)]) == mcnemar([(True, False), (False, True)]) == 1.0
