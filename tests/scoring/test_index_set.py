"""IndexSet is a set of integers, and knows runs and gaps."""

from hypothesis import given
from hypothesis import strategies as st

from stream_app.scoring.index_set import IndexSet

INDICES = st.lists(st.integers(0, 90), max_size=30)
BOUND = st.integers(0, 95)


@given(INDICES, INDICES, INDICES)
def test_it_is_a_set(first: list[int], second: list[int], gone: list[int]) -> None:
    made = IndexSet(first)
    copy = made.copy()
    made.add(second)
    made.discard(gone)
    expected = (set(first) | set(second)) - set(gone)
    assert [*made] == sorted(expected)
    assert (len(made), bool(made)) == (len(expected), bool(expected))
    assert all((index in made) == (index in expected) for index in range(100))
    assert set(copy) == set(first)


@given(INDICES, BOUND, BOUND, INDICES)
def test_a_part_is_taken_out(indices: list[int], lo: int, size: int, later: list[int]) -> None:
    made = IndexSet(indices)
    made.discard_between(lo, lo + size)
    made.add(later)
    kept = {index for index in indices if not lo <= index < lo + size}
    assert set(made) == kept | set(later)


@given(INDICES, BOUND, BOUND)
def test_runs_and_gaps_are_those_of_the_set(indices: list[int], lo: int, hi: int) -> None:
    made, expected = IndexSet(indices), set(indices)
    missing = [index for index in range(lo, hi) if index not in expected]
    assert made.count(lo, hi) == max(0, hi - lo) - len(missing)
    assert made.newest_missing(lo, hi, 3) == missing[::-1][:3]
    assert made.oldest_missing(lo, hi, 3) == missing[:3]
    assert made.end_of_run(lo) == next(i for i in range(lo, 200) if i not in expected)
    run = hi
    while run - 1 in expected and run > lo:
        run -= 1
    assert made.start_of_run(hi, min(lo, hi)) == run


@given(INDICES, INDICES)
def test_the_union_holds_both(first: list[int], second: list[int]) -> None:
    one, two = IndexSet(first), IndexSet(second)
    assert set(one | two) == set(first) | set(second)
    assert (set(one), set(two)) == (set(first), set(second))
