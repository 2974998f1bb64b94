"""The key context is chronological, has overlapping text once, keeps to its budget, and leaves
out nothing that fits."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xl3m_core import KeyContext, Segment, Segmenter, Tail
from xl3m_core.context import splice

RECORDS = st.lists(st.text("abc é☃", max_size=60), min_size=1, max_size=40)
NO_LIMIT = 10**9


def bytes_of(texts: Sequence[str]) -> list[int]:
    """A token counter: one token for each byte."""
    return [len(text.encode()) for text in texts]


def segments_of(text: str, overlap: int = 8) -> list[Segment]:
    segmenter = Segmenter(bytes_of, 24, overlap)
    tail, segments = segmenter.push(Tail(), text)
    return segments + segmenter.flush(tail)


def drawn(data: st.DataObject, segments: list[Segment]) -> list[Segment]:
    """Some of the segments, in any order, as a ranking."""
    return data.draw(st.lists(st.sampled_from(segments), unique=True)) if segments else []


def segment(index: int, text: str, start: int) -> Segment:
    return Segment(index, text, start, start + len(text), 0, len(text.encode()))


@given(RECORDS, st.integers(0, 23), st.data())
def test_contiguous_segments_are_the_original_text(
    records: list[str], overlap: int, data: st.DataObject
) -> None:
    text = "\n".join(records)
    segments = segments_of(text, overlap)
    first = data.draw(st.integers(0, len(segments)))
    some = segments[first : data.draw(st.integers(first, len(segments)))]
    context = KeyContext.assemble(data.draw(st.permutations(some)), NO_LIMIT, bytes_of)
    assert context.text == (text[some[0].start : some[-1].end] if some else "")


@pytest.mark.guarantee("Answer contents")
@given(RECORDS, st.data())
def test_segments_are_in_time_order_and_what_they_hold_stands_there_once(
    records: list[str], data: st.DataObject
) -> None:
    text = "".join(f"{i} {record}\n" for i, record in enumerate(records))
    ranked = drawn(data, segments_of(text))
    context = KeyContext.assemble(ranked, NO_LIMIT, bytes_of)
    assert list(context.segments) == sorted(ranked, key=lambda s: s.index)
    held = {i for s in ranked for i in range(s.start, s.end)}
    assert context.text.replace("\n", "") == "".join(text[i] for i in sorted(held)).replace(
        "\n", ""
    )


@pytest.mark.guarantee("Answer contents")
@given(RECORDS, st.integers(0, 120), st.data())
def test_the_budget_holds_and_the_least_certain_go_first_and_whole(
    records: list[str], budget: int, data: st.DataObject
) -> None:
    ranked = drawn(data, segments_of("\n".join(records)))
    context = KeyContext.assemble(ranked, budget, bytes_of)
    assert bytes_of([context.text])[0] <= budget
    chosen = len(context.segments)
    if chosen == 1 and context.segments[0] != ranked[0]:
        assert bytes_of([ranked[0].text])[0] > budget, "cut, as it does not fit"
        return
    assert set(context.segments) == set(ranked[:chosen])
    assert all(s.text in context.text for s in context.segments)
    if chosen < len(ranked):
        one_more = splice(sorted(ranked[: chosen + 1], key=lambda s: s.start))
        assert bytes_of([one_more])[0] > budget


def test_a_budget_may_be_used_up() -> None:
    ranked = [segment(0, "one\n", 0), segment(4, "two", 50)]
    assert KeyContext.assemble(ranked, 7, bytes_of).text == "one\ntwo"
    assert KeyContext.assemble(ranked, 6, bytes_of).text == "one\n"


def test_segments_that_are_apart_have_a_line_break_between_them() -> None:
    apart = [segment(0, "one\n", 0), segment(4, "two", 50), segment(9, "three", 90)]
    assert splice(apart) == "one\ntwo\nthree"


def test_a_segment_within_what_is_written_adds_nothing() -> None:
    assert splice([segment(0, "abcdef", 0), segment(1, "cd", 2), segment(2, "efg", 4)]) == "abcdefg"


@pytest.mark.parametrize("budget", [-5, 0])
def test_without_room_or_segments_there_is_no_context(budget: int) -> None:
    assert KeyContext.assemble([segment(0, "a", 0)], budget, bytes_of) == KeyContext((), "")
    assert KeyContext.assemble([], 10, bytes_of) == KeyContext((), "")


LONG = st.text("ab\n☃", min_size=1, max_size=200)


@given(LONG, st.lists(LONG, max_size=2), st.integers(0, 90))
def test_where_not_even_the_best_fits_its_end_does(
    text: str, others: list[str], budget: int
) -> None:
    best, rest = segment(3, text, 40), [segment(9 + i, t, 900) for i, t in enumerate(others)]
    context = KeyContext.assemble([best, *rest], budget, bytes_of)
    if bytes_of([text])[0] <= budget:
        assert best in context.segments
        return
    assert bytes_of([context.text])[0] <= budget
    for cut in context.segments:
        assert (cut.index, cut.end, cut.text) == (3, best.end, context.text)
        assert best.text.endswith(cut.text) and cut.start == cut.end - len(cut.text)
    assert context.segments or budget < 4
    assert 2 * len(context.text.encode()) >= budget - 3
