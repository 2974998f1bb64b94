"""Searching a log for a question's words: counts are those of the words, blocks merge to what one
search of the whole log finds, and the best come first."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.scoring.bm25 import Bm25
from stream_app.scoring.search_ranking import SearchRanking, search_block
from stream_app.scoring.term_counts import SEPARATORS, Terms
from xl3m_core import Segment

LINES = [f"{word} {i} pump of hall {i % 7}\n" for i in range(60) for word in ("red", "blue")]
TALK = "so I think we should look at the remote control again, it is about the buttons"


def segments(texts: Sequence[str], first: int = 0) -> list[Segment]:
    return [Segment(i, text, i, i + 1, 0, 1) for i, text in enumerate(texts, first)]


def ranked(texts: Sequence[str], question: str, most: int, size: int) -> list[int]:
    """The best segments of a log that is searched in blocks, the newest first."""
    ranking, every = SearchRanking(most), segments(texts)
    for hi in range(len(every), 0, -size):
        ranking.add(search_block(every[max(0, hi - size) : hi], question, most))
    return ranking.best()


TEXT = st.text(st.sampled_from("ab0 .-_/\nÄéß“K"), max_size=30)


@settings(deadline=None)
@given(TEXT, TEXT)
def test_terms_are_counted_as_words_whatever_the_letters(text: str, question: str) -> None:
    terms = Terms(question)
    plain = SEPARATORS.sub(" ", text.lower())
    for needle, count in zip(terms._needles, terms.counts([text])[0], strict=True):
        word = needle.decode().strip()
        apart = len(re.findall(rf"(?<!\S){re.escape(word)}(?!\S)", plain))
        assert (count > 0) == (apart > 0)
        assert count <= apart


@settings(deadline=None)
@given(st.lists(TEXT, max_size=9), TEXT, st.integers(1, 5))
def test_every_hit_has_a_word_of_the_question(texts: list[str], question: str, size: int) -> None:
    found = ranked(texts, question, 4, size)
    assert len(set(found)) == len(found) <= 4
    for index in found:
        assert Terms(question).counts([texts[index]]).any()


@settings(deadline=None)
@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=40), st.integers(1, 12))
def test_blocks_have_the_same_hits_as_the_whole_log(texts: list[str], size: int) -> None:
    most, question = len(texts), "Which red pump is in hall 3?"
    assert set(ranked(texts, question, most, size)) == set(ranked(texts, question, most, most))


def test_the_best_come_first_whatever_the_size_of_blocks() -> None:
    target = LINES.index("red 59 pump of hall 3\n")
    for size in (7, 50, 1000):
        assert ranked(LINES, "red 59", 5, size)[0] == target


def test_the_order_is_that_of_an_index_where_texts_are_equally_long() -> None:
    """The slow twin: BM25 over an index of all words."""
    texts = [f"node {i:03} {'panic' if i % 9 == 0 else 'alive'} rack {i % 4:03}" for i in range(90)]
    question = "panic of rack 003"
    scores = Bm25(texts).scores(question)
    found = ranked(texts, question, 20, 90)
    assert [scores[i] for i in found] == pytest.approx(sorted(scores, reverse=True)[:20])


def test_of_equally_good_segments_the_latest_comes_first() -> None:
    assert ranked(["pump\n"] * 9, "pump", 9, 4) == [*range(9)][::-1]


@pytest.mark.parametrize(("text", "is_talk"), [(TALK, True), ("2005.06.03 00:17 R02 ok", False)])
def test_a_log_knows_whether_it_is_talk(text: str, is_talk: bool) -> None:
    hits = search_block(segments([text] * 40), "buttons", 5)
    assert hits.is_talk == is_talk
    assert hits.texts == 40 and hits.weights.shape == (len(hits.indices), 1)


def test_a_question_of_stop_words_and_an_empty_block_find_nothing() -> None:
    assert ranked(LINES, "of the", 5, 50) == []
    assert np.all(search_block([], "pump", 5).indices == np.zeros(0))
