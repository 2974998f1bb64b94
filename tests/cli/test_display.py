"""The printed answer: offsets, missing offsets, and warnings."""

from typing import Any

import pytest

from stream_app.cli.display import coverage_hint, known_names, positions, progress, show_answer

ANSWER: dict[str, Any] = {
    "certainty": -0.02,
    "coverage": 1.0,
    "as_of": {"xl3m.tokens/2": 1042},
    "evidence": [],
    "timings": {"cover": 0.5},
}


def printed(capsys: pytest.CaptureFixture[str], **changes: Any) -> str:
    show_answer(ANSWER | changes, deadline=30.0, seconds=0.75)
    return capsys.readouterr().out


def test_offsets_are_a_list_a_person_can_read() -> None:
    assert positions({}) == "the end"
    assert positions({"xl3m.tokens/2": 1042}) == "xl3m.tokens/2 at 1042"
    assert positions({"b/0": 2, "a/1": 1}) == "a/1 at 1, b/0 at 2"
    many = positions({f"t/{number}": number for number in range(9)})
    assert many == "t/0 at 0, t/1 at 1, t/2 at 2, t/3 at 3, 5 more"


def test_an_answer_says_how_long_it_took_and_no_more_if_all_is_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = printed(capsys)
    assert "as of xl3m.tokens/2 at 1042" in said and "total 0.750 s" in said
    assert "answered from" not in said and "not found" not in said


@pytest.mark.parametrize(("grounded", "is_said"), [(True, False), (None, False), (False, True)])
def test_an_answer_that_is_nowhere_in_its_evidence_says_so(
    grounded: bool | None, is_said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ("not found in the evidence" in printed(capsys, grounded=grounded)) == is_said


@pytest.mark.parametrize(
    ("coverage", "cover", "deadline", "said"),
    [
        (1.0, 30.0, 30.0, ""),
        (0.62, 30.001, 30.0, "62% of the stream: ask again, or with --deadline 60"),
        (0.62, 40.0, 40.0, "ask again, or with --deadline 80"),
        (0.62, 90.0, 90.0, "62% of the stream: ask again"),
        (0.9999, 30.0, 30.0, "99% of the stream"),
        (0.62, 3.0, 30.0, "retention deleted the rest"),
    ],
)
def test_what_the_asker_may_do_is_said(
    coverage: float, cover: float, deadline: float, said: str
) -> None:
    answer = ANSWER | {"coverage": coverage, "timings": {"cover": cover}}
    missing = coverage_hint(answer, deadline)
    assert missing.endswith(said) if deadline == 90 else said in missing
    assert bool(missing) == bool(said)


def test_progress_is_never_whole_before_it_is() -> None:
    assert progress(999, 1000, 3.2) == "scored 99% for this question: 999 of 1000 segments, 3 s"
    assert progress(1000, 1000, 3.2).startswith("scored 100%")
    assert progress(0, 0, 0.0).startswith("scored 0%")


def test_names_most_like_the_wanted_one_come_first() -> None:
    names = ["a", "b", "c", "d", "dpkg.log", "e", "f", "web\n1"]
    assert known_names(names, "dpgk.log").startswith("known streams: dpkg.log, ")
    assert known_names(names, "dpgk.log").endswith("and 3 more")
    assert known_names(["web\n1"], "x") == r"known streams: web\x0a1"
    assert known_names([], "x") == "there are no streams yet"
