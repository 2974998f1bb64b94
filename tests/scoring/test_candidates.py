"""Candidates: what words promise comes first, in talk with its neighbours, and a question without a
matching word gets segments from all over the log."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stream_app.scoring.candidates import (
    PER_K,
    Offer,
    around,
    candidates,
    most_candidates,
    spread,
    with_neighbours,
)
from stream_app.scoring.jobs import TrackedQuestion
from stream_app.store.state import QuestionRecord, ScoredRange

LOG = [range(0, 1000)]
PARTS = st.lists(st.integers(1, 50), min_size=1, max_size=3).map(
    lambda sizes: [range(100 * i, 100 * i + size) for i, size in enumerate(sizes)]
)


def question() -> TrackedQuestion:
    return TrackedQuestion("s", "q", QuestionRecord("q?"), ScoredRange(1000, 1000))


@given(st.lists(st.integers(-5, 1005), max_size=60), st.booleans(), PARTS, st.integers(1, 5))
def test_candidates_are_unscored_segments_each_once_and_at_least_some(
    ranked: list[int], is_talk: bool, parts: Sequence[range], k: int
) -> None:
    within = [index for index in dict.fromkeys(ranked) if any(index in part for part in parts)]
    found, total = candidates(within, is_talk, parts, k), sum(map(len, parts))
    assert len(set(found)) == len(found) <= most_candidates(total, k)
    assert all(any(index in part for part in parts) for index in found)
    assert len(found) >= min(total, k)
    assert found[: min(1, len(within))] == within[:1]


def test_in_talk_a_good_segment_comes_with_its_neighbours_and_in_a_log_alone() -> None:
    assert candidates([500, 7], True, LOG, 1)[:6] == [500, 499, 501, 7, 6, 8]
    assert candidates([500, 7], False, LOG, 1)[:2] == [500, 7]
    assert [*with_neighbours([0, 1], 1, [range(0, 2)])] == [0, 1]


def test_neighbours_of_the_best_are_not_the_best_themselves() -> None:
    assert around([5, 6], LOG) == [4, 3, 7, 8]


@given(PARTS)
def test_spread_reaches_every_segment(parts: list[range]) -> None:
    assert set(spread(parts)) == {index for part in parts for index in part}


def test_any_beginning_of_spread_is_even() -> None:
    order = [*dict.fromkeys(spread(LOG))]
    for count in (8, 16, 64):
        places = sorted(order[:count])
        gaps = [after - before for before, after in pairwise(places)]
        assert max(gaps) <= 2 * 1000 / count


def test_a_question_without_a_matching_word_gets_segments_from_all_over_the_log() -> None:
    found = candidates([], False, LOG, 4)
    assert len(found) == PER_K * 4
    assert min(found) < 100 and max(found) > 900


@given(st.lists(st.lists(st.integers(0, 20), unique=True, max_size=9), max_size=6), st.data())
def test_what_was_taken_is_not_offered_again(orders: list[list[int]], data: st.DataObject) -> None:
    asked, offer, taken = question(), Offer(), list[int]()
    for order in orders:
        offer.put(asked, order)
        assert [*asked.candidates] == [index for index in order if index not in taken]
        for _ in range(data.draw(st.integers(0, len(asked.candidates)))):
            taken.append(asked.candidates.popleft())
