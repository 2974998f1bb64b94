"""Grounding: an answer that occurs in its evidence, and one that does not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.cli.display import show_answer
from xl3m_core import Answer, Evidence
from xl3m_core.grounding import is_grounded

LOG = [
    "20:16 INFO [disk] /dev/sdb1 is full (98%), port 8123/tcp, version 6.16.1\n",
    "20:17 WARN  pump  seven\nis down;\tpumps two, three and nine are up. Cost: 1,234.50 EUR\n",
    "第七ポンプは停止した。 Größe: STRASSE 5 ﬁle-a.txt host_7 v2\n",
]


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize(
    "answer",
    [
        "8123", "8123.", " 8123 \n", "98%", "/dev/sdb1", "DISK", "Pump seven", "pump seven is down",
        "`pump seven`", "\"Pump seven\".", "6.16.1", "two, three and nine", "nine, two and three",
        "two;three;nine", "- nine\n- two", "two and 8123", "1,234.50", "ポンプ", "停止",
        "第七ポンプ。",
        "grösse", "straße", "file-a.txt", "ＩＮＦＯ", "host_7", "tcp", "v2", "5",
    ],
)  # fmt: skip
def test_what_is_in_the_evidence_is_grounded(answer: str) -> None:
    assert is_grounded(answer, LOG)


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize(
    "answer",
    [
        "", " ", "...", "\n", ",", "or", "812", "123", "6.16", "16.1", "6.16.1.2", "pump eight",
        "pum", "own", "is full of water", "two, three and ten", "e", "i", "host", "8123, 9",
        "The disk /dev/sdb1", "34.50", "1,23", "ポンプ8",
    ],
)  # fmt: skip
def test_what_is_not_in_the_evidence_is_not(answer: str) -> None:
    assert not is_grounded(answer, LOG)


@pytest.mark.guarantee("Answer contents")
def test_without_evidence_nothing_is_grounded() -> None:
    assert not is_grounded("8123", [])
    assert not is_grounded("8123", ["", " "])


WORDS = st.lists(st.text("abé7漢ß", min_size=1, max_size=5), min_size=1, max_size=12)


@pytest.mark.guarantee("Answer contents")
@given(WORDS, st.data())
def test_any_run_of_words_of_a_text_is_grounded_in_it(
    words: list[str], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(words) - 1))
    some = words[first : data.draw(st.integers(first + 1, len(words)))]
    assert is_grounded("  ".join(some).upper() + ".", ["x", " ".join(words)])


@pytest.mark.guarantee("Answer contents")
@given(WORDS, st.text("abé7ß", min_size=1, max_size=5))
def test_a_word_that_is_none_of_the_texts_is_not_grounded(words: list[str], word: str) -> None:
    spaced = [re.sub("漢", "", each) for each in words]
    there = {each.casefold() for each in spaced}
    assert is_grounded(word, [" ".join(spaced)]) == (word.casefold() in there)


@pytest.mark.guarantee("Answer contents")
@given(st.text(max_size=40), st.lists(st.text(max_size=60), max_size=3))
def test_any_texts_have_an_answer(answer: str, texts: list[str]) -> None:
    assert is_grounded(answer, texts) in (True, False)


@pytest.mark.guarantee("Answer contents")
def test_every_answer_says_so_and_a_refusal_says_neither() -> None:
    evidence = (Evidence("s", 0, -0.1, 0, 9, "port 8123"),)
    assert Answer("q", "8123", evidence=evidence).to_dict()["grounded"] is True
    assert Answer("q", "8124", evidence=evidence).to_dict()["grounded"] is False
    assert Answer("q", "", evidence=evidence).grounded is False
    assert Answer("q", error="no").to_dict()["grounded"] is None


@pytest.mark.guarantee("Answer contents")
def test_the_terminal_says_what_is_not_in_the_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("8123", "8124"):
        answer = Answer("q", text, -0.1, evidence=(Evidence("s", 0, -0.1, 0, 9, "port 8123"),))
        show_answer(answer.to_dict())
    first, second = capsys.readouterr().out.split("certainty")[1:]
    assert "not found in the evidence" not in first and "not found in the evidence" in second
