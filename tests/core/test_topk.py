"""The running top-k equals sorting all scores at the end, for any order of arrival."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xl3m_core import TopK

# Few values, so that many are equal.
SCORES = st.lists(st.sampled_from([0.0, -0.0, -0.5, -1.0, -7.25, -math.inf, math.nan]), max_size=30)
SIZES = st.integers(1, 8)


def best_of(k: int, scores: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """All scores sorted, best first; the lower index wins a tie."""
    known = [(index, score) for index, score in scores if score > -math.inf]
    return sorted(known, key=lambda pair: (-pair[1], pair[0]))[:k]


def added(k: int, scores: list[tuple[int, float]]) -> TopK:
    top = TopK(k)
    for index, score in scores:
        top.add(index, score)
    return top


@pytest.mark.guarantee("Scoring order")
@given(SIZES, SCORES, st.data())
def test_any_order_gives_what_sorting_gives(
    k: int, scores: list[float], data: st.DataObject
) -> None:
    pairs = list(enumerate(scores))
    shuffled = data.draw(st.permutations(pairs))
    assert added(k, shuffled).best() == best_of(k, pairs)


@given(SIZES, SCORES)
def test_what_is_in_and_what_went_out_are_everything(k: int, scores: list[float]) -> None:
    top, kept = TopK(k), set[int]()
    for index, score in enumerate(scores):
        kept.add(index)
        out = top.add(index, score)
        kept.discard(-1 if out is None else out)
        assert kept == {index for index, _ in top.best()}
        assert len(kept) <= k


def test_of_equals_the_earlier_stays_and_the_index_that_is_out_is_returned() -> None:
    top = TopK(2)
    assert [top.add(5, -1.0), top.add(9, -1.0)] == [None, None]
    assert top.add(7, -1.0) == 9
    assert top.add(8, -1.0) == 8, "its own: it is not in"
    assert top.add(1, -0.5) == 7
    assert top.best() == [(1, -0.5), (5, -1.0)]


@pytest.mark.guarantee("Scoring order")
@pytest.mark.parametrize("unknown", [-math.inf, math.nan])
def test_a_score_of_which_nothing_is_known_is_never_in(unknown: float) -> None:
    top = TopK(3)
    assert top.add(0, unknown) == 0
    assert top.best() == []


@pytest.mark.parametrize("k", [0, -1])
def test_less_than_one_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        TopK(k)
