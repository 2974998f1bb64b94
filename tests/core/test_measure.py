"""Certainty has the bounds and fixed points of its formulas, and uses no other column."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from xl3m_core.measure import IGNORE_INDEX, certainty, entropy, likelihood, logits_needed, nucleus
from xl3m_core.method import MEASURES, Measure

NAN, INF = math.nan, math.inf
SEEDS = st.integers(0, 2**31)
ALL: list[Measure] = ["entropy", "top_p", "likelihood", "hybrid"]


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


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("measure", ALL)
def test_half_precision_is_computed_in_float32(kind: torch.dtype, measure: Measure) -> None:
    logits, question = random_logits(1, 4, 6, 1000).to(kind), torch.randint(0, 1000, (4, 5))
    scores = certainty(logits, question, measure)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, certainty(logits.float(), question, measure))


@given(SEEDS, st.integers(1, 6), st.sampled_from(ALL))
def test_certainty_is_never_above_zero(seed: int, m: int, measure: Measure) -> None:
    logits = random_logits(seed, 2, m + 1, 30, spread=200)
    assert bool((certainty(logits, logits[:, :-1].argmax(-1), measure) <= 0).all())


@given(SEEDS, st.integers(1, 6), st.integers(1, 6))
def test_likelihood_is_the_mean_of_log_probabilities_whatever_the_padding(
    seed: int, m: int, more: int
) -> None:
    logits = random_logits(seed, 1, m + more + 1, 20)
    ids = torch.arange(m)[None] % 20
    padded = torch.cat([torch.full((1, more), IGNORE_INDEX), ids], dim=1)
    log_p = torch.log_softmax(logits[0, more:].double(), dim=-1)
    naive = sum(float(log_p[i, int(ids[0, i])]) for i in range(m)) / m
    assert float(likelihood(logits[:, more:], ids)[0]) == pytest.approx(naive, abs=1e-5)
    assert float(likelihood(logits, padded)[0]) == pytest.approx(naive, abs=1e-5)


@pytest.mark.parametrize("poison", [NAN, INF, -INF])
@pytest.mark.parametrize("measure", ALL)
def test_a_column_that_is_not_asked_for_is_not_read(measure: Measure, poison: float) -> None:
    """row       pad | s | q1 q2      predictions of the pad and of s are poisoned;
    question    IGN  IGN| q1 q2      that of q1 stands on the last column of s
    """
    logits = random_logits(2, 2, 5, 20)
    question = torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, 3, 4], [1, 2, 3, 4]])
    clean = certainty(logits, question, measure)
    logits[0, :2] = poison
    assert torch.equal(certainty(logits, question, measure), clean)


@pytest.mark.guarantee("Scoring order")
@pytest.mark.parametrize("poison", [NAN, INF])
@pytest.mark.parametrize("measure", ALL)
def test_a_row_without_numbers_is_the_least_certain_and_the_others_keep_theirs(
    measure: Measure, poison: float
) -> None:
    logits, question = random_logits(3, 3, 4, 20), torch.ones(3, 3, dtype=torch.long)
    clean = certainty(logits, question, measure)
    logits[1] = poison
    scores = certainty(logits, question, measure)
    assert float(scores[1]) == -INF
    assert torch.equal(scores[[0, 2]], clean[[0, 2]])


def test_a_question_of_nothing_is_the_least_certain_by_likelihood() -> None:
    nothing = torch.full((1, 3), IGNORE_INDEX)
    assert float(certainty(random_logits(4, 1, 4, 20), nothing, "likelihood")[0]) == -INF


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
    formula = sum(p * math.log(p) for p in few)
    assert float(certainty(logits, nothing, "top_p")[0]) == pytest.approx(formula, abs=1e-5)


@given(SEEDS)
def test_hybrid_weighs_every_token_of_the_question_as_it_weighs_the_answer(seed: int) -> None:
    logits, question = random_logits(seed, 3, 4, 20), torch.tensor([[1, 2, 3]] * 3)
    one, two, both = (
        certainty(logits, question, measure) for measure in ("entropy", "likelihood", "hybrid")
    )
    assert torch.allclose(one + 3 * two, both)


def test_positions_are_those_the_measure_reads() -> None:
    assert [logits_needed([measure], 7) for measure in ALL] == [1, 1, 8, 8]
    assert (logits_needed(["entropy", "top_p"], 7), logits_needed(ALL, 7)) == (1, 8)
    assert tuple(ALL) == MEASURES
