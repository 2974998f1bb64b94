"""Late questions about real texts: the evidence that is found once the candidates were scored.

Evidence recall is that of the COMPARED best segments, see `retrieval`. Scored are the first
candidates of the product's own prefilter, a twentieth of the segments and at least PER_K for each
of the COMPARED best: a twentieth of a meeting of 40 segments is 2, which cannot hold the 4 best.
"""

import argparse
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import numpy as np

from benchmarks.accuracy.datasets import Document, load
from benchmarks.accuracy.ranking.evidence import Evidence
from benchmarks.accuracy.ranking.outcomes import COMPARED
from benchmarks.accuracy.ranking.pools import cut
from benchmarks.accuracy.ranking.rankers import measures_needed
from benchmarks.accuracy.ranking.readings import Readings
from benchmarks.accuracy.ranking.samples import first, fitting, sample
from benchmarks.harness.prefiltered import scored_first
from benchmarks.harness.progress import Progress
from stream_app.scoring.candidates import SHARE
from xl3m_core import Engine, Method, Segment
from xl3m_core.features import Features
from xl3m_core.relevance import relevance
from xl3m_core.smoothing import smoothed

SETS = ("qmsum/val", "logqa/HDFS", "logqa/Spark")
PER_K = 2
DRAWS, SEED = 10_000, 0


@dataclass(frozen=True, slots=True)
class Found:
    """One question: the share of the log that was scored first, and the share of the evidence that
    was found then and once all was scored."""

    document: int
    share: float
    early: float
    full: float


def rows(args: argparse.Namespace, engine: Engine) -> list[dict[str, Any]]:
    """One row per set and segment size."""
    sized = [_sized(engine, size) for size in args.segment_tokens or [None]]
    return [
        _row(name, _documents(args, documents, each), each, args)
        for name, documents in load(args.data, args.sets or SETS).items()
        for each in sized
    ]


def _sized(engine: Engine, tokens: int | None) -> Engine:
    """The engine with segments of so many tokens."""
    if tokens is None:
        return engine
    model, measure = engine.model, engine.method.measure
    method = Method.fit(model.window, segment_tokens=tokens, k=model.k, measure=measure)
    return Engine(model, method, engine.batch_tokens)


def _documents(
    args: argparse.Namespace, documents: Sequence[Document], engine: Engine
) -> list[Document]:
    some = [each.head(args.lines or len(each.lines)) for each in documents]
    return fitting(sample(first(some, args.documents), args.questions), engine)


def _row(
    name: str, documents: Sequence[Document], engine: Engine, args: argparse.Namespace
) -> dict[str, Any]:
    readings = Readings(engine, measures_needed(("xl3m",), engine), args.cache)
    texts = [cut(document.text, engine.segmenter()) for document in documents]
    asked = [[question.text for question in document.questions] for document in documents]
    pairs = [([s.text for s in text], some) for text, some in zip(texts, asked, strict=True)]
    progress = Progress("late", sum(readings.missing(*each) for each in pairs))
    found = list[Found]()
    for i, (document, segments) in enumerate(zip(documents, texts, strict=True)):
        numbers = readings.read(*pairs[i], progress)
        found += _found(i, document, segments, numbers, engine)
    low, high = interval(found)
    early, full = (mean(getattr(each, when) for each in found) for when in ("early", "full"))
    return {
        "variant": f"{name}, segments of {engine.method.segment_tokens}",
        "tokens": int(median(segments[-1].end_token for segments in texts)),
        "questions": len(found),
        "share_scored": mean(each.share for each in found),
        "evidence_recall": early,
        "evidence_recall_exact": full,
        "of_exact": early / full if full else math.nan,
        "low": low,
        "high": high,
    }


def _found(
    number: int, document: Document, segments: Sequence[Segment], numbers: Any, engine: Engine
) -> Iterator[Found]:
    smooth = [engine.is_smoothed(segment.text) for segment in segments]
    for question, each in zip(document.questions, numbers, strict=True):
        local = [relevance(Features(*row), engine.method.measure) for row in each]
        evidence = Evidence.of(document.evidence(question), segments)
        chosen = scored_first(segments, question.text, COMPARED)[: _most(len(segments))]
        early, full = (
            evidence.shares(best(local, read, smooth), [COMPARED])[0]
            for read in (set(chosen), set(range(len(segments))))
        )
        yield Found(number, len(chosen) / len(segments), early, full)


def _most(segments: int) -> int:
    return min(segments, max(PER_K * COMPARED, math.ceil(SHARE * segments)))


def best(local: Sequence[float], read: Collection[int], smooth: Sequence[bool]) -> list[int]:
    """The segments that were read, the best by their final score first."""

    def score(index: int) -> float | None:
        return local[index] if index in read else None

    final = {i: smoothed(i, score) if smooth[i] else round(local[i], 4) for i in sorted(read)}
    return sorted(final, key=lambda i: -final[i])


def interval(found: Sequence[Found]) -> tuple[float, float]:
    """The 95 % interval of early over full recall, by a bootstrap over the documents, or over the
    questions of a single one."""
    several = len({each.document for each in found}) > 1
    clusters = [each.document if several else i for i, each in enumerate(found)]
    _, places = np.unique(clusters, return_inverse=True)
    early, full = (
        np.bincount(places, [getattr(each, when) for each in found]) for when in ("early", "full")
    )
    drawn = np.random.default_rng(SEED).integers(0, len(early), (DRAWS, len(early)))
    sums = early[drawn].sum(1), full[drawn].sum(1)
    ratios = np.divide(*sums, out=np.ones(DRAWS), where=sums[1] > 0)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)
