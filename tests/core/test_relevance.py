"""Relevance is a function of stored numbers, smoothing one of scores: order plays no part."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xl3m_core import Segment, TopK
from xl3m_core.features import FEATURE_BYTES, Features, exact, pack, unpack
from xl3m_core.lexical import QuestionWords, words
from xl3m_core.method import MEASURES, Measure
from xl3m_core.relevance import LEXICAL_WEIGHT, relevance
from xl3m_core.smoothing import REACH, WEIGHTS, is_running_text, smoothed
from xl3m_core.xl3m import RunningTopK

NUMBER = st.floats(0, 100, width=32)
SCORES = st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=30)
FOUND = Features(1.5, 1.0, -30.0, 10.0, 0.25)


@given(st.tuples(*[NUMBER] * 5))
def test_stored_numbers_give_the_scores_of_those_just_read(numbers: tuple[float, ...]) -> None:
    features = exact(Features(*numbers))
    stored = pack(features)
    assert len(stored) == FEATURE_BYTES
    for measure in MEASURES:
        assert relevance(unpack(stored), measure) == relevance(features, measure)


def test_each_measure_is_its_formula() -> None:
    formulas: dict[Measure, float] = {
        "entropy": -1.5,
        "top_p": -1.0,
        "likelihood": -3.0,
        "hybrid": -31.5,
        "fused": -3.0 + 0.25 * LEXICAL_WEIGHT,
    }
    assert {measure: relevance(FOUND, measure) for measure in MEASURES} == formulas


@pytest.mark.parametrize("measure", MEASURES)
def test_a_number_that_is_missing_is_the_lowest_score(measure: Measure) -> None:
    assert relevance(Features(math.nan), measure) == -math.inf
    assert relevance(FOUND._replace(tokens=0, entropy=math.nan, nucleus=math.nan), measure) == (
        -math.inf
    )


@given(SCORES, st.data())
def test_smoothing_is_a_mean_over_the_neighbours_there_are(
    scores: list[float], data: st.DataObject
) -> None:
    known = {i: s for i, s in enumerate(scores) if data.draw(st.booleans())}
    for index in known:
        near = {j: w for j, w in zip(range(index - REACH, index + REACH + 1), WEIGHTS, strict=True)}
        near = {j: w for j, w in near.items() if j in known}
        mean = sum(w * known[j] for j, w in near.items()) / sum(near.values())
        assert smoothed(index, known.get) == pytest.approx(mean, abs=1e-4)
        assert min(known[j] for j in near) - 1e-4 <= mean <= max(known[j] for j in near) + 1e-4


@given(SCORES, st.lists(st.booleans(), min_size=30, max_size=30), st.integers(1, 5))
def test_the_running_top_k_is_that_of_all_final_scores(
    scores: list[float], averaged: list[bool], k: int
) -> None:
    running, top = RunningTopK(TopK(k)), TopK(k)
    for i, (score, is_averaged) in enumerate(zip(scores, averaged, strict=False)):
        running.add(Segment(i, f"{i}", i, i + 1, i, i + 1), score, is_averaged)
        assert len(running.kept) <= k + 1
    known = dict(enumerate(scores))
    for i, score in known.items():
        top.add(i, smoothed(i, known.get) if averaged[i] else score)
    assert [(s.index, score) for s, score in running.ranked()] == top.best()


LOG = "081109 203615 148 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block terminating"
TALK = "Project Manager: Right, so we have twelve minutes. Um, shall we start with the remote?"


def test_talk_is_smoothed_and_a_log_is_not() -> None:
    assert is_running_text(TALK) and is_running_text(f"[10:31] <ana> {TALK}\n{TALK}")
    assert not is_running_text(LOG) and not is_running_text("")


WEIGHED = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.1, 9), max_size=6)


@given(WEIGHED, st.text("abcxyz "))
def test_a_match_is_the_share_of_the_weights(weights: dict[str, float], text: str) -> None:
    match = QuestionWords(weights).match(text)
    assert 0 <= match <= 1 + 1e-9
    found = sum(w for word, w in weights.items() if word in text.split())
    assert match == pytest.approx(found / (sum(weights.values()) or 1))


def test_an_identifier_is_a_word_and_so_are_its_parts() -> None:
    found = list(words("Is web-17 up? blk_-160899"))
    assert found == ["is", "web-17", "web", "17", "up", "blk_-160899", "blk", "160899"]
