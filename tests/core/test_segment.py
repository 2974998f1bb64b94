"""The segmenter: any chunking gives the same segments, without loss and within the budget."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xl3m_core.segment import Segment, Tail
from xl3m_core.segmenter import Segmenter

TEXT = st.text(
    st.one_of(
        st.sampled_from("ab \n\n\r\t0"), st.characters(exclude_categories=["Cs"], codec="utf-8")
    ),
    max_size=400,
)


def bytes_of(texts: Sequence[str]) -> list[int]:
    """An exact and uneven counter: one token for each byte of UTF-8."""
    return [len(text.encode()) for text in texts]


def segments_of(segmenter: Segmenter, chunks: list[str]) -> list[Segment]:
    tail, done = Tail(), []
    for chunk in chunks:
        tail, new = segmenter.push(tail, chunk)
        done += new
    return done + segmenter.flush(tail)


def split_at(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


@pytest.mark.guarantee("Chunking")
@given(TEXT, st.lists(st.integers(0, 400)), st.integers(1, 40), st.integers(0, 39))
def test_any_chunking_gives_the_same_segments(
    text: str, cuts: list[int], size: int, overlap: int
) -> None:
    segmenter = Segmenter(bytes_of, size, min(overlap, size - 1))
    assert segments_of(segmenter, split_at(text, cuts)) == segments_of(segmenter, [text])
    assert segments_of(segmenter, list(text)) == segments_of(segmenter, [text])


@pytest.mark.guarantee("Chunking")
@given(TEXT, st.lists(st.integers(0, 400)), st.integers(1, 40))
def test_chunks_together_are_as_one_by_one(text: str, cuts: list[int], size: int) -> None:
    segmenter = Segmenter(bytes_of, size, size // 2)
    chunks = [(chunk, time) for time, chunk in enumerate(split_at(text, cuts))]
    tail, segments = Tail(), list[Segment]()
    for chunk, time in chunks:
        tail, new = segmenter.push(tail, chunk, time)
        segments += new
    assert segmenter.extend(Tail(), chunks) == (tail, segments)


@given(st.text("aé☃\U0001f40d", min_size=1, max_size=600), st.integers(4, 40))
def test_pieces_of_a_long_record_about_fill_their_segments(text: str, size: int) -> None:
    segmenter = Segmenter(bytes_of, size)
    segments = segments_of(segmenter, [text])
    assert all(len(s.text) <= segmenter.max_line_chars for s in segments)
    assert sum(s.tokens for s in segments) / len(segments) > size / 8 or len(segments) < 3


@pytest.mark.guarantee("Chunking")
@given(TEXT, st.integers(4, 40), st.integers(0, 39))
def test_segments_cover_the_text_and_offsets_tell_where(text: str, size: int, overlap: int) -> None:
    segmenter = Segmenter(bytes_of, size, min(overlap, size - 1))
    covered, covered_tokens = 0, 0
    for index, segment in enumerate(segments_of(segmenter, [text])):
        assert segment.index == index
        assert segment.text == text[segment.start : segment.end]
        assert segment.start <= covered < segment.end, "no gap, and something new"
        assert segment.start_token <= covered_tokens < segment.end_token
        assert segment.tokens <= size
        covered, covered_tokens = segment.end, segment.end_token
    assert covered == len(text)


@pytest.mark.guarantee("Chunking")
@given(TEXT, st.integers(1, 40))
def test_a_record_that_fits_is_never_cut(text: str, size: int) -> None:
    segmenter = Segmenter(bytes_of, size, size // 2)
    texts = [segment.text for segment in segments_of(segmenter, [text])]
    for record in text.splitlines(keepends=True) if "\n" in text else []:
        if (
            record.endswith("\n")
            and len(record.splitlines()) == 1
            and bytes_of([record])[0] <= size
        ):
            assert any(record in segment for segment in texts)


@pytest.mark.guarantee("Chunking")
@given(TEXT, st.integers(2, 40))
def test_overlap_repeats_whole_records_within_its_budget(text: str, size: int) -> None:
    segmenter = Segmenter(bytes_of, size, size // 2)
    segments = segments_of(segmenter, [text])
    for before, after in pairwise(segments):
        assert before.end_token - after.start_token <= size // 2
        if before.text.endswith("\n"):
            assert text[after.start - 1 : after.start] == "\n"


def test_overlap_is_as_many_records_as_fit() -> None:
    text = "aa\nbb\ncc\ndd\nee\nff\n"
    texts = [segment.text for segment in segments_of(Segmenter(bytes_of, 9, 3), [text])]
    assert texts == ["aa\nbb\ncc\n", "cc\ndd\nee\n", "ee\nff\n"]
    texts = [segment.text for segment in segments_of(Segmenter(bytes_of, 9, 6), [text])]
    assert texts[:2] == ["aa\nbb\ncc\n", "bb\ncc\ndd\n"]


@pytest.mark.guarantee("Bounded memory")
def test_a_line_without_end_is_cut_as_it_comes() -> None:
    segmenter = Segmenter(bytes_of, 10)
    tail, segments = segmenter.push(Tail(), "x" * 1000)
    assert len(segments) > 80
    assert len(tail.partial) < segmenter.max_line_chars


@pytest.mark.parametrize("size", [100, 1000])
@pytest.mark.parametrize("shape", ["x", "気", " ", "😀", "x+ ", "気+ ", "x+ +😀", "😀+\n"])
def test_what_is_counted_is_not_much_more_than_what_there_is(shape: str, size: int) -> None:
    """A very uneven counter: a space has no token, some characters have four."""
    lengths = {"x": size + 4, "気": size // 3 + 2, " ": 7 * size, "😀": 7 * size, "\n": 1}
    text = "".join(each * lengths[each] for each in shape.split("+")) * 20
    counted = 0

    def count(texts: Sequence[str]) -> list[int]:
        nonlocal counted
        counted += sum(map(len, texts))
        return bytes_of([text.replace(" ", "") for text in texts])

    Segmenter(count, size, size // 8).push(Tail(), text)
    assert counted < 20 * len(text)


@pytest.mark.guarantee("Chunking")
def test_times_are_those_of_the_records() -> None:
    segmenter = Segmenter(bytes_of, 6)
    tail, first = segmenter.push(Tail(), "aa\nb", time_ms=1)
    tail, second = segmenter.push(tail, "b\ncc\n", time_ms=2)
    assert [(s.text, s.start_ms, s.end_ms) for s in first + second] == [("aa\nbb\n", 1, 1)]
    assert [(s.text, s.start_ms, s.end_ms) for s in segmenter.flush(tail)] == [("cc\n", 2, 2)]


def test_overlap_must_leave_room() -> None:
    with pytest.raises(ValueError, match="overlap"):
        Segmenter(bytes_of, 8, 8)
