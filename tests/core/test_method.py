"""A fitted method fits its window; a method that does not is refused, and the error has numbers."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xl3m_core import Method, MethodError
from xl3m_core.method import MEASURES

WINDOWS = st.integers(64, 131_072)


@given(WINDOWS)
def test_every_window_has_a_method_that_fits_it(window: int) -> None:
    method = Method.fit(window)
    method.check()
    scoring = 1 + method.segment_tokens + method.question_tokens
    joined = 1 + method.k * method.segment_tokens + method.question_tokens + method.answer_tokens
    assert scoring <= window
    assert joined <= window
    assert method.window == window


@given(WINDOWS)
def test_four_to_eight_segments_are_joined_and_overlap_is_a_part_of_one(window: int) -> None:
    method = Method.fit(window)
    assert 4 <= method.k <= 8
    assert 0 <= method.overlap_tokens < method.segment_tokens <= 512
    assert min(method.question_tokens, method.answer_tokens) >= 4


SIZES = ["segment_tokens", "overlap_tokens", "question_tokens", "answer_tokens", "k"]


@given(WINDOWS, st.dictionaries(st.sampled_from(SIZES), st.integers(-2, 300)))
def test_what_is_given_is_kept_and_either_fits_or_is_refused(
    window: int, sizes: dict[str, Any]
) -> None:
    try:
        method = Method.fit(window, **sizes)
    except MethodError:
        return
    method.check()
    assert {name: getattr(method, name) for name in sizes} == sizes


@given(WINDOWS, st.integers(1, 24))
def test_segments_make_room_for_as_many_as_are_wanted(window: int, k: int) -> None:
    assert Method.fit(window, k=k).k == k


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"segment_tokens": 500}, r"segment 500 \+ question 32 = 533 tokens.* window is 256"),
    ({"question_tokens": 250}, r"question 250 .*= \d+ tokens.* window is 256"),
    ({"k": 9, "segment_tokens": 40}, r"k 9 x segment 40 .*answer 16 = 409 tokens.* window is 256"),
    ({"answer_tokens": 250}, r"answer 250 = \d+ tokens.* window is 256"),
    ({"segment_tokens": 30, "overlap_tokens": 30}, r"overlap 30 .*segment \(30"),
    ({"overlap_tokens": -1}, r"overlap -1"),
    ({"k": 0}, r"at least 1.*k=0"),
    ({"segment_tokens": 0}, r"at least 1.*segment_tokens=0"),
    ({"question_tokens": 0}, r"at least 1.*question_tokens=0"),
    ({"answer_tokens": 0}, r"at least 1.*answer_tokens=0"),
    ({"measure": "mood"}, r"'mood'.*entropy.*likelihood.*hybrid"),
]


@pytest.mark.parametrize(("sizes", "message"), REFUSED)
def test_a_method_that_does_not_fit_is_refused_with_its_numbers(
    sizes: dict[str, Any], message: str
) -> None:
    with pytest.raises(MethodError) as refused:
        Method.fit(256, **sizes)
    assert re.search(message, str(refused.value))


def test_a_window_may_be_used_up() -> None:
    sizes: dict[str, Any] = {"segment_tokens": 50, "k": 4, "question_tokens": 40}
    assert Method.fit(256, answer_tokens=15, **sizes).k == 4
    with pytest.raises(MethodError, match="257"):
        Method.fit(256, answer_tokens=16, **sizes)


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_is_taken(measure: Any) -> None:
    assert Method.fit(256, measure=measure).measure == measure


@given(st.integers(-5, 63))
def test_a_window_too_small_is_refused_by_its_number(window: int) -> None:
    try:
        Method.fit(window).check()
    except MethodError as refused:
        assert str(window) in str(refused)
