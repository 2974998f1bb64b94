"""The made-up text of the benchmarks: its needles stand where they are said to, and only once."""

import pytest

from benchmarks.haystack import VARIANTS, Haystack

DEPTHS = (0.0, 0.3, 1.0)


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


@pytest.fixture(params=VARIANTS)
def haystack(request: pytest.FixtureRequest) -> Haystack:
    return Haystack(words, 5000, request.param, seed=4, depths=DEPTHS)


def test_it_reads_the_same_each_time(haystack: Haystack) -> None:
    assert "".join(haystack) == "".join(haystack)


def test_it_has_about_the_length_it_should(haystack: Haystack) -> None:
    assert 5000 <= words(["".join(haystack)])[0] <= 6000


def test_each_needle_stands_once_and_at_its_depth(haystack: Haystack) -> None:
    text = "".join(haystack)
    for needle, depth in zip(haystack.needles, DEPTHS, strict=True):
        assert [text.count(line) for line in needle.lines] == [1] * len(needle.lines)
        assert text.index(needle.lines[0]) / len(text) == pytest.approx(depth, abs=0.25)


def test_the_answer_stands_in_the_needles_lines(haystack: Haystack) -> None:
    for needle in haystack.needles:
        for part, line in zip(needle.answer.split(", "), needle.lines, strict=True):
            assert part in line


def test_another_seed_is_another_text() -> None:
    one, other = (Haystack(words, 500, seed=seed) for seed in (1, 2))
    assert "".join(one) != "".join(other)
