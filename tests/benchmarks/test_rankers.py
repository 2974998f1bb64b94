"""How segments are ranked: smoothing, baselines, calibration."""

import numpy as np
import pytest

from benchmarks.accuracy.ranking import rankers
from benchmarks.accuracy.ranking.rankers import CONTENT_FREE, RANK_OFFSET, Text
from xl3m_core import XL3M, Engine, Method, Segment, TopK
from xl3m_core.method import MEASURES
from xl3m_core.relevance import DIGITS
from xl3m_core.smoothing import smoothed
from xl3m_core.xl3m import RunningTopK

WORDS = [
    "budget",
    "remote",
    "button",
    "cost",
    "market",
    "design",
    "rubber",
    "speech",
    "panel",
    "battery",
]
QUESTIONS = ("Which host failed?", "What was said about the budget?")


@pytest.fixture(scope="module")
def engine() -> Engine:
    loaded = XL3M.load().engine
    return Engine(loaded.model, Method.fit(loaded.model.window, measure="fused"))


def text(contents: list[str], engine: Engine | None = None) -> Text:
    segments = [Segment(i, each, i, i + 1, i, i + 1) for i, each in enumerate(contents)]
    words, numbers = rankers.bm25(contents, QUESTIONS), None
    if engine:
        pairs = [(each, q) for q in (*QUESTIONS, *CONTENT_FREE) for each in contents]
        read = np.array(engine.features(pairs, MEASURES))
        numbers = read.reshape(len(QUESTIONS) + len(CONTENT_FREE), len(contents), -1)
    return Text("t", segments, QUESTIONS, words, numbers)


@pytest.mark.parametrize("places", [range(30), [0, 1, 3, 4, 9, 20, 21, 29], [5]])
def test_smoothing_all_scores_at_once_is_smoothing_each(places: range | list[int]) -> None:
    scores = np.random.default_rng(0).normal(size=(3, len(places)))
    fast = rankers.smooth(scores, list(places))
    for row, means in zip(scores, fast, strict=True):
        by_place = dict(zip(places, row.tolist(), strict=True))
        slow = [smoothed(place, by_place.get) for place in places]
        assert means.tolist() == pytest.approx(slow, abs=10**-DIGITS)


def test_the_product_smooths_running_text_alone(engine: Engine) -> None:
    talk = ["A: we should talk about the budget", "B: yes", "A: the host failed", "B: again"]
    log = [f"2024-01-0{i} 10:11:12.345 host 10.0.0.{i} failed code 5{i}3" for i in range(4)]
    for contents, name in ((talk, "fused_smoothed"), (log, "fused")):
        assert all(engine.is_smoothed(each) == (contents is talk) for each in contents)
        given = text(contents, engine)
        final, same = (rankers.scores(given, each, engine) for each in ("xl3m", name))
        assert final == pytest.approx(same, abs=10**-DIGITS)


@pytest.mark.parametrize("digits", ["", " 1234567890"])
def test_the_product_keeps_the_best_that_it_is_said_to_rank(engine: Engine, digits: str) -> None:
    contents = [f"{word} was said about the {word} host{digits}" for word in WORDS]
    given = text(contents, engine)
    for question, row in zip(QUESTIONS, rankers.scores(given, "xl3m", engine), strict=True):
        top = RunningTopK(TopK(4))
        local = engine.score([(segment.text, question) for segment in given.segments])
        for segment, score in zip(given.segments, local, strict=True):
            top.add(segment, score, engine.is_smoothed(segment.text))
        assert [segment.index for segment, _ in top.ranked()] == rankers.order(row)[:4]


def test_words_are_smoothed_by_their_ranks() -> None:
    given = text(["nothing here", "the host failed", "a budget", "and more", "at the end"])
    ranks = [0 if i == 1 else i + (i < 1) for i in range(5)]
    inverse = np.array([[1 / (RANK_OFFSET + rank) for rank in ranks]])
    found = rankers.scores(given, "bm25_smoothed", None)
    assert found[0] == pytest.approx(rankers.smooth(inverse, range(5))[0])


@pytest.mark.parametrize("measure", MEASURES)
def test_each_measure_ranks_as_the_engine_scores(engine: Engine, measure: str) -> None:
    given = text(["the host failed", "a budget of 12", "nothing"], engine)
    by = Engine(engine.model, Method.fit(engine.model.window, measure=measure))  # type: ignore[arg-type]
    for question, row in zip(QUESTIONS, rankers.scores(given, measure, engine), strict=True):
        scored = by.score([(segment.text, question) for segment in given.segments])
        assert row.tolist() == pytest.approx(scored, abs=0.01)


def test_calibration_takes_off_what_a_segment_has_for_no_question(engine: Engine) -> None:
    given = text(["the host failed", "a budget of 12", "nothing"], engine)
    calibrated = rankers.scores(given, "calibrated_entropy", engine)
    free = [(s.text, question) for question in CONTENT_FREE for s in given.segments]
    mean = -np.array(engine.features(free))[:, 0].reshape(len(CONTENT_FREE), -1).mean(0)
    assert calibrated + mean == pytest.approx(rankers.scores(given, "entropy", engine), abs=0.01)


def test_chance_is_the_same_each_time_and_differs_by_question() -> None:
    first, second = (rankers.scores(text(["a"] * 9), "chance", None) for _ in range(2))
    assert (first == second).all()
    assert (first[0] != first[1]).all()


def test_of_equal_scores_the_earlier_segment_is_first() -> None:
    assert rankers.order(np.array([1.0, 2, 1, 2])) == [1, 3, 0, 2]
    assert rankers.ranks(np.array([[1.0, 2, 1, 2]])).tolist() == [[2, 0, 3, 1]]


def test_the_vocabulary_is_sorted_only_where_top_p_is_asked_for(engine: Engine) -> None:
    assert not rankers.measures_needed(["chance", "bm25", "oracle"], engine)
    assert "top_p" not in rankers.measures_needed(["entropy", "xl3m"], engine)
    assert rankers.measures_needed(["calibrated_top_p"], engine) == set(MEASURES)
