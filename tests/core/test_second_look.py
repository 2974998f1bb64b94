"""The second look: records of a key context, and the few that share most with the question."""

from hypothesis import given
from hypothesis import strategies as st

from xl3m_core.lexical import QuestionWords
from xl3m_core.second_look import SCORED_RECORDS, cut_records, promising

LOG = (
    "10:00 disk full\nTraceback (most recent call last):\n  at x\n10:01 pump down\n"
    "10:00 disk full\n"
)


def test_a_stack_trace_stays_with_its_record_and_each_record_comes_once() -> None:
    assert cut_records(LOG, "auto") == [
        "10:00 disk full\nTraceback (most recent call last):\n  at x",
        "10:01 pump down",
        "10:00 disk full",
    ]
    assert len(cut_records(LOG * 2, "line")) == 4


@given(st.text(st.sampled_from("ab \n"), max_size=40))
def test_no_line_is_lost(text: str) -> None:
    records = cut_records(text, "line")
    assert {line.strip() for line in text.splitlines()} - {""} == {*records}


def test_the_most_promising_come_first_and_equal_ones_in_their_order() -> None:
    records = [f"line {i}" for i in range(2 * SCORED_RECORDS)] + ["pump seven is down"]
    found = promising(records, QuestionWords({"pump": 3.0, "seven": 1.0}))
    assert found == ["pump seven is down", *records[: SCORED_RECORDS - 1]]
