"""Spans: whole words, none that the question holds, and each of them stands in the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xl3m_core.grounding import is_grounded
from xl3m_core.spans import MAX_WORDS, starts, word_spans

LINE = (
    "Jun 23 01:41:29 combo sshd[18969]: failure; uid=0 rhost=10.0.0.7:514  user=guest "
    '{"memory":8192} fetched /var/www/html.'
)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)


def spans(text: str, question: str) -> list[str]:
    return [text[start.start : end] for start in starts(text, question) for end in start.ends]


def test_values_are_words() -> None:
    words = [LINE[start:end] for start, end in word_spans(LINE)]
    assert words[:4] == ["Jun", "23", "01:41:29", "combo"]
    assert words[-9:] == [
        "0", "rhost", "10.0.0.7:514", "user", "guest", "memory", "8192", "fetched", "/var/www/html",
    ]  # fmt: skip


def test_an_answer_neither_begins_nor_ends_with_a_word_of_the_question() -> None:
    found = spans(LINE, "Which user failed from rhost 10.0.0.7:514?")
    assert "guest" in found and "01:41:29" in found
    assert not [span for span in found if span.endswith(("10.0.0.7:514", "user"))]


@pytest.mark.parametrize("question", ["Was it accepted or rejected?", "Is it rejected or not?"])
def test_a_choice_that_the_question_offers_may_be_the_answer(question: str) -> None:
    assert "rejected" in spans("login rejected", question)
    assert "rejected" not in spans("login rejected", "Why was it rejected?")


@pytest.mark.guarantee("Answer contents")
@given(PRINTABLE, PRINTABLE)
def test_each_span_is_grounded_in_its_text(text: str, question: str) -> None:
    for start in starts(text, question):
        assert len(start.ends) <= MAX_WORDS and all(end > start.start for end in start.ends)
    for span in spans(text, question):
        assert is_grounded(span, [text]) or not any(map(str.isalnum, span))
