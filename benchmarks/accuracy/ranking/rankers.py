"""Rankers: ways to score the segments of a text for its questions, each from words or from the raw
numbers that the model read; higher is more relevant.

`NAME_smoothed` is the mean over a segment's neighbours, on any text. `calibrated_NAME` is less the
same for questions without content on the same segment. `xl3m` is what the product ranks by: the
method's measure, and the mean over neighbours where the engine takes it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream_app.scoring.bm25 import Bm25
from xl3m_core import Engine, Measure, Segment
from xl3m_core.features import Features
from xl3m_core.method import MEASURES
from xl3m_core.relevance import relevance
from xl3m_core.smoothing import REACH, WEIGHTS, smoothed

Floats = np.ndarray[Any, np.dtype[np.float64]]

CONTENT_FREE = ("N/A", "What is it?", "What happened?", "What is discussed here?")
RANK_OFFSET = 20
"""A rank is smoothed as 1 / (RANK_OFFSET + rank), so that the first ones count most."""
ORACLE = "oracle"
BASELINES = ("bm25", "bm25_smoothed")
"""What the others are compared with."""
BY_MODEL = (*MEASURES, "calibrated_entropy", "calibrated_likelihood")
RANKERS = (
    "chance",
    *BASELINES,
    *(name + suffix for name in BY_MODEL for suffix in ("", "_smoothed")),
    "rank_sum",
    "xl3m",
    ORACLE,
)
WITHOUT_MODEL = ("chance", *BASELINES, ORACLE)


@dataclass(frozen=True, slots=True)
class Text:
    """The segments of a text that are ranked, and its questions.

    numbers: what the model read, (questions and then CONTENT_FREE, segments, fields of `Features`);
    None: no model. words: the BM25 scores of the questions, (questions, segments).
    """

    name: str
    segments: Sequence[Segment]
    questions: Sequence[str]
    words: Floats
    numbers: Floats | None = None


def bm25(texts: Sequence[str], questions: Sequence[str]) -> Floats:
    """The BM25 score of each text, (questions, texts)."""
    index = Bm25(texts)
    return np.array([index.scores(question) for question in questions], dtype=np.float64)


def measures_needed(names: Sequence[str], engine: Engine) -> frozenset[Measure]:
    """What the model has to be read for: none without a ranker by it; top_p, which sorts the
    vocabulary for each pair, only if it is asked for."""
    if set(names) <= set(WITHOUT_MODEL):
        return frozenset()
    asked = any(name.removeprefix("calibrated_").startswith("top_p") for name in names)
    own = engine.method.measure == "top_p"
    return frozenset(measure for measure in MEASURES if measure != "top_p" or asked or own)


def scores(text: Text, name: str, engine: Engine | None) -> Floats:
    """(questions, segments) by one of the rankers but the oracle. engine: the one that read."""
    if name == "chance":
        return _chance(text)
    if name == "bm25":
        return text.words
    if name == "bm25_smoothed":
        return smooth(1 / (RANK_OFFSET + ranks(text.words)), places(text))
    assert engine and text.numbers is not None
    if name == "rank_sum":
        return _rank_sum(text.numbers)
    if name == "xl3m":
        return _final(text, by_measure(_asked(text.numbers), engine.method.measure), engine)
    local = _local(text.numbers, name.removesuffix("_smoothed"))
    return smooth(local, places(text)) if name.endswith("_smoothed") else local


def order(scores: Floats) -> list[int]:
    """The best first; of equal scores the earlier segment first."""
    return [int(i) for i in np.argsort(-scores, kind="stable")]


def ranks(scores: Floats) -> Floats:
    """The rank, from 0, of each segment in each row of scores."""
    return np.array([np.argsort(order(row)) for row in scores], dtype=np.float64)


def places(text: Text) -> list[int]:
    """The indices of the segments in the whole text."""
    return [segment.index for segment in text.segments]


def smooth(scores: Floats, places: Sequence[int]) -> Floats:
    """The weighted mean of each score and its neighbours' in each row; places: the segments'
    indices, of which some may be missing. As `xl3m_core.smoothing`, and not rounded."""
    columns = np.array(places) + REACH
    total = np.zeros((len(scores), columns.max() + REACH + 1))
    weight = np.zeros(total.shape[1])
    for offset, share in enumerate(WEIGHTS, -REACH):
        total[:, columns + offset] += share * scores
        weight[columns + offset] += share
    means: Floats = total[:, columns] / weight[columns]
    return means


def by_measure(numbers: Floats, measure: Measure) -> Floats:
    """The local scores of raw numbers (questions, segments, fields) by a measure."""
    rows = [[relevance(Features(*each), measure) for each in row] for row in numbers.tolist()]
    return np.array(rows)


def _chance(text: Text) -> Floats:
    rows = [random.Random(f"{text.name} {question}") for question in text.questions]
    return np.array([[row.random() for _ in text.segments] for row in rows])


def _local(numbers: Floats, name: str) -> Floats:
    """The local scores by a measure; or calibrated, which takes the mean over the content-free
    questions off."""
    measure = next(each for each in MEASURES if each == name.removeprefix("calibrated_"))
    if name == measure:
        return by_measure(_asked(numbers), measure)
    every = by_measure(numbers, measure)
    calibrated: Floats = every[: -len(CONTENT_FREE)] - every[-len(CONTENT_FREE) :].mean(0)
    return calibrated


def _asked(numbers: Floats) -> Floats:
    return numbers[: -len(CONTENT_FREE)]


def _rank_sum(numbers: Floats) -> Floats:
    """Minus the sum of the ranks by two measures."""
    measures: tuple[Measure, ...] = ("entropy", "likelihood")
    summed = [ranks(by_measure(_asked(numbers), measure)) for measure in measures]
    return -(summed[0] + summed[1])


def _final(text: Text, local: Floats, engine: Engine) -> Floats:
    """The final scores: where the engine smooths, the mean over neighbours."""
    final = local.copy()
    column = {place: i for i, place in enumerate(places(text))}
    smooths = [i for i, s in enumerate(text.segments) if engine.is_smoothed(s.text)]
    for row, scores in zip(final, local, strict=True):
        for i in smooths:
            row[i] = smoothed(text.segments[i].index, lambda j, s=scores: _get(s, column.get(j)))  # type: ignore[misc]
    return final


def _get(scores: Floats, column: int | None) -> float | None:
    return None if column is None else float(scores[column])
