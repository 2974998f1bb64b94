"""The raw numbers have the bounds and fixed points of its formulas, and uses no other column."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from xl3m_core.features import Features
from xl3m_core.measure import (
    entropy,
    log_likelihood,
    log_totals,
    logits_needed,
    nucleus,
    numbers,
)
from xl3m_core.method import MEASURES, Measure
from xl3m_core.question import IGNORE_INDEX
from xl3m_core.relevance import relevance

NAN, INF = math.nan, math.inf
SEEDS = st.integers(0, 2**31)


def random_logits(seed: int, *shape: int, spread: float = 5.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread


@given(SEEDS, st.integers(2, 400), st.floats(0, 1000))
def test_entropy_is_between_nothing_and_that_of_no_idea(seed: int, v: int, spread: float) -> None:
    values = entropy(random_logits(seed, 3, v, spread=spread))
    assert values.shape == (3,)
    assert bool((values >= 0).all())
    assert bool((values <= math.log(v) + 1e-4).all())


@given(st.integers(2, 70_000), st.floats(-100, 100))
def test_entropy_of_a_uniform_row_is_the_logarithm_of_its_length(v: int, level: float) -> None:
    assert float(entropy(torch.full((1, v), level))[0]) == pytest.approx(math.log(v), abs=1e-3)


@given(st.integers(2, 100), st.data())
def test_entropy_of_a_sure_row_is_zero(v: int, data: st.DataObject) -> None:
    logits = torch.full((1, v), -INF)
    logits[0, data.draw(st.integers(0, v - 1))] = 3.0
    assert float(entropy(logits)[0]) == 0.0


@given(SEEDS, st.floats(-500, 500))
def test_entropy_is_that_of_the_formula_and_a_shift_changes_nothing(seed: int, by: float) -> None:
    logits = random_logits(seed, 2, 50)
    p = torch.softmax(logits.double(), dim=-1)
    formula = -(p * p.log()).sum(-1)
    assert torch.allclose(entropy(logits).double(), formula, atol=1e-5)
    assert torch.allclose(entropy(logits + by).double(), formula, atol=2e-3)


def same(one: list[Any], other: list[Any]) -> bool:
    """Whether all numbers are equal; NaN equals NaN."""
    return np.array_equal(np.array(one), np.array(other), equal_nan=True)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(kind: torch.dtype) -> None:
    logits, labels = random_logits(1, 4, 6, 1000).to(kind), torch.randint(0, 1000, (4, 5))
    assert same(numbers(logits, labels, MEASURES), numbers(logits.float(), labels, MEASURES))


@given(SEEDS, st.integers(1, 6), st.integers(1, 6))
def test_likelihood_is_the_sum_of_log_probabilities_whatever_the_padding(
    seed: int, m: int, more: int
) -> None:
    logits = random_logits(seed, 1, m + more + 1, 20)
    ids = torch.arange(m)[None] % 20
    padded = torch.cat([torch.full((1, more), IGNORE_INDEX), ids], dim=1)
    log_p = torch.log_softmax(logits[0, more:].double(), dim=-1)
    naive = sum(float(log_p[i, int(ids[0, i])]) for i in range(m))
    assert float(log_likelihood(logits[:, more:], ids)[0]) == pytest.approx(naive, abs=1e-4)
    assert float(log_likelihood(logits, padded)[0]) == pytest.approx(naive, abs=1e-4)
    assert float(log_likelihood(logits[:, more:], padded)[0]) == pytest.approx(naive, abs=1e-4)


@given(SEEDS, st.integers(1, 4), st.integers(0, 4))
def test_labels_that_are_ignored_do_not_count(seed: int, m: int, after: int) -> None:
    logits, ids = random_logits(seed, 1, m + after + 1, 20), torch.arange(m + after)[None] % 20
    labels = torch.cat([ids[:, :m], torch.full((1, after), IGNORE_INDEX)], dim=1)
    alone = log_likelihood(logits[:, : m + 1], ids[:, :m])
    assert float(log_likelihood(logits, labels)[0]) == pytest.approx(float(alone[0]), abs=1e-4)


@pytest.mark.parametrize("poison", [NAN, INF, -INF])
def test_a_column_that_is_not_asked_for_is_not_read(poison: float) -> None:
    """row       pad | s | q1 q2      predictions of the pad and of s are poisoned;
    labels      IGN  IGN| q1 q2      that of q1 stands on the last column of s
    """
    logits = random_logits(2, 2, 5, 20)
    labels = torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, 3, 4], [1, 2, 3, 4]])
    clean = numbers(logits, labels, MEASURES)
    logits[0, :2] = poison
    assert same(numbers(logits, labels, MEASURES), clean)


@pytest.mark.guarantee("Scoring order")
@pytest.mark.parametrize("poison", [NAN, INF])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_row_without_numbers_is_the_least_relevant_and_the_others_keep_theirs(
    measure: Measure, poison: float
) -> None:
    logits, labels = random_logits(3, 3, 4, 20), torch.ones(3, 3, dtype=torch.long)
    clean = numbers(logits, labels, MEASURES)
    logits[1] = poison
    found = numbers(logits, labels, MEASURES)
    assert relevance(Features(*found[1], tokens=3, lexical=0.5), measure) == -INF
    assert same([found[0], found[2]], [clean[0], clean[2]])


def test_numbers_that_no_measure_needs_are_not_computed() -> None:
    logits, labels = random_logits(3, 1, 4, 20), torch.ones(1, 3, dtype=torch.long)
    known = {m: ~np.isnan(np.array(numbers(logits, labels, [m])[0])) for m in MEASURES}
    assert known["entropy"].tolist() == [True, False, False]
    assert known["top_p"].tolist() == [True, True, False]
    assert known["fused"].tolist() == [True, False, True]


@given(SEEDS, st.floats(0.01, 1), st.floats(0, 20))
def test_top_p_is_the_entropy_of_the_fewest_tokens_that_make_up_p(
    seed: int, p: float, spread: float
) -> None:
    logits = random_logits(seed, 1, 30, spread=spread)
    chances = sorted(torch.softmax(logits[0], -1).tolist(), reverse=True)
    kept = nucleus(logits, p)[0].exp()
    count = int((kept > 0).sum())
    assert sum(chances[: count - 1]) < p + 1e-5
    assert count == 30 or sum(chances[:count]) > p - 1e-5 or chances[count] < 1e-30
    few = [chance / sum(chances[:count]) for chance in chances[:count]]
    formula = -sum(chance * math.log(chance) for chance in few if chance > 0)
    assert float(entropy(nucleus(logits, p))[0]) == pytest.approx(formula, abs=1e-4)


def test_top_p_leaves_out_the_unlikely() -> None:
    logits = torch.tensor([[[0.6, 0.3, 0.06, 0.04]]]).log()
    few = [0.6 / 0.96, 0.3 / 0.96, 0.06 / 0.96]
    nothing = torch.ones(1, 0, dtype=torch.long)
    formula = -sum(p * math.log(p) for p in few)
    assert numbers(logits, nothing, ["top_p"])[0].nucleus == pytest.approx(formula, abs=1e-5)


@given(st.lists(st.sampled_from([IGNORE_INDEX, 3]), max_size=9))
def test_positions_are_those_the_measures_read(labels: list[int]) -> None:
    """One before the first label that counts predicts it."""
    assert logits_needed(["entropy", "top_p"], labels) == 1
    first = labels.index(3) if 3 in labels else len(labels)
    assert logits_needed(["entropy", "hybrid"], labels) == len(labels) - first + 1


@pytest.mark.parametrize("shift", [-1e4, -200.0, -80.0, 0.0, 80.0, 200.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 1, 7), (3, 4, 500), (2, 0, 5)])
def test_totals_are_those_of_logsumexp_at_any_height(
    shape: tuple[int, int, int], shift: float
) -> None:
    logits = 4 * torch.randn(shape, generator=torch.Generator().manual_seed(1)) + shift
    wanted = logits.double().logsumexp(dim=-1)
    torch.testing.assert_close(log_totals(logits).double(), wanted, rtol=1e-6, atol=1e-5)


def test_the_total_of_logits_without_a_number_is_none() -> None:
    logits = torch.tensor([[[0.0, 1.0], [math.nan, 1.0]], [[2.0, 3.0], [0.0, math.inf]]])
    assert log_totals(logits).isfinite().tolist() == [[True, False], [True, False]]
