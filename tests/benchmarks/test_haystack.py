"""The benchmarks' generated text: it has the given length, and each needle once, in its place."""

from collections.abc import Callable

import pytest

from benchmarks.harness.haystack import VARIANTS, Haystack
from xl3m_core import LanguageModel

DEPTHS = tuple(i / 10 for i in range(11))
LENGTHS = (2_500, 16_000)


@pytest.fixture(scope="module")
def count() -> Callable[[list[str]], list[int]]:
    return LanguageModel.load().count_tokens


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("tokens", LENGTHS)
def test_needles_stand_once_and_in_their_places(
    count: Callable[[list[str]], list[int]], variant: str, tokens: int
) -> None:
    haystack = Haystack(count, tokens, variant, seed=4, depths=DEPTHS)
    text = "".join(haystack)
    assert "".join(haystack) == text, "it reads the same each time"
    assert count([text])[0] == pytest.approx(tokens, abs=100)
    for needle, depth in zip(haystack.needles, DEPTHS, strict=True):
        places = (depth, 1 - depth)
        for i, line in enumerate(needle.lines):
            assert text.count(line) == 1
            before = count([text[: text.index(line)]])[0]
            assert before / tokens == pytest.approx(places[i % 2], abs=0.08)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_needle_alone_in_a_short_text_is_where_it_is_asked_to_be(
    count: Callable[[list[str]], list[int]], depth: float
) -> None:
    haystack = Haystack(count, 1_000, seed=4, depths=(depth,))
    text = "".join(haystack)
    assert count([text])[0] == pytest.approx(1_000, abs=100)
    before = count([text[: text.index(haystack.needles[0].lines[0])]])[0]
    assert before / 1_000 == pytest.approx(depth, abs=0.2)


def test_the_answer_stands_in_the_needles_lines(
    count: Callable[[list[str]], list[int]], variant: str
) -> None:
    for needle in Haystack(count, 5_000, variant, depths=DEPTHS).needles:
        for part, line in zip(needle.answer.split(", "), needle.lines, strict=True):
            assert part in line


def test_another_seed_is_another_text(count: Callable[[list[str]], list[int]]) -> None:
    one, other = (Haystack(count, 500, seed=seed) for seed in (1, 2))
    assert "".join(one) != "".join(other)


def test_needles_that_do_not_fit_are_refused(count: Callable[[list[str]], list[int]]) -> None:
    with pytest.raises(ValueError, match="do not fit 300 tokens"):
        Haystack(count, 300, depths=DEPTHS)
