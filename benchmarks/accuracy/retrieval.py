"""How much of the evidence is in the k best segments, on real texts with annotated evidence.

Evidence recall @k: the share of a question's evidence, in characters, that lies in the k best
segments, averaged over questions. A line of LogQA is therefore a hit or a miss, unless it is longer
than a segment. A rank is that of the first segment with any evidence. The project ships no data.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.accuracy.datasets import Document, load
from stream_app.scoring.bm25 import Bm25
from training import plots
from xl3m_core import XL3M, Engine, QuestionError, Segment, Segmenter, Tail
from xl3m_core.method import MEASURES
from xl3m_core.relevance import relevance

KS = (1, 4, 8, 16)
RANKERS = ("bm25", *MEASURES, "rank_sum", "calibrated")
CONTENT_FREE = "N/A"
SHORT_LINES, SHORT_QUESTIONS, QUESTIONS = 60, 4, 40
SEED = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--data", type=Path, help="a folder with logqa/ and qmsum/")
    parser.add_argument(
        "--questions", type=int, help="questions per set, sampled with a fixed seed"
    )
    parser.add_argument(
        "--segment-words", type=int, help="words per segment; default: segments of the method"
    )
    parser.add_argument("--rankers", nargs="+", choices=RANKERS, default=RANKERS)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per set and ranker, and a plot of recall over k."""
    sets = _sets(args)
    needs_model = not args.segment_words or set(args.rankers) != {"bm25"}
    engine = XL3M.load(args.model).engine if needs_model else None
    segmenter = engine.segmenter() if engine else None
    if args.segment_words:
        segmenter = Segmenter(_count_words, args.segment_words)
    assert segmenter
    rows = []
    for name, documents in sets.items():
        fitting = [_fitting(document, engine) for document in documents]
        refused = _questions(documents) - _questions(fitting)
        found = _ranks(fitting, segmenter, engine, args.rankers, name)
        rows += [_row(name, r, found[r], refused) for r in args.rankers if found[r]]
    _plot(Path(args.out), rows)
    return rows


def _sets(args: argparse.Namespace) -> dict[str, list[Document]]:
    sets = load(args.data) if args.data else {}
    if not sets:
        raise SystemExit("retrieval: give --data PATH, a folder with logqa/ and qmsum/ in it")
    questions = args.questions or (SHORT_QUESTIONS if args.short else QUESTIONS)
    if args.short:
        sets = {name: [d.head(SHORT_LINES) for d in docs] for name, docs in sets.items()}
    return {name: sample(documents, questions) for name, documents in sets.items()}


def sample(documents: Sequence[Document], questions: int) -> list[Document]:
    """The documents with that many questions in all; documents without any are left out."""
    every = [(i, each) for i, document in enumerate(documents) for each in document.questions]
    chosen = random.Random(SEED).sample(every, min(questions, len(every)))
    kept = [tuple(each for j, each in chosen if i == j) for i in range(len(documents))]
    pairs = zip(documents, kept, strict=True)
    return [replace(document, questions=some) for document, some in pairs if some]


# --- ranking ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """One question: the rank, from 0, of the segment that holds each character of its evidence."""

    ranks: np.ndarray[Any, np.dtype[np.int64]]
    segments: int


def _ranks(
    documents: Sequence[Document],
    segmenter: Segmenter,
    engine: Engine | None,
    rankers: Sequence[str],
    name: str,
) -> dict[str, list[Found]]:
    found: dict[str, list[Found]] = {ranker: [] for ranker in rankers}
    for document in tqdm(documents, desc=name, disable=None):
        if not document.questions:
            continue
        tail, segments = segmenter.push(Tail(), document.text)
        segments += segmenter.flush(tail)
        for ranker, orders in rank(document, segments, engine, rankers).items():
            for question, order in zip(document.questions, orders, strict=True):
                found[ranker].append(find(document.evidence(question), segments, order))
    return found


def find(
    evidence: np.ndarray[Any, np.dtype[np.bool_]], segments: Sequence[Segment], order: Sequence[int]
) -> Found:
    """The rank of the first segment, in that order, that holds each character of the evidence."""
    first = np.full(len(evidence), len(order), dtype=np.int64)
    for place in reversed(range(len(order))):
        segment = segments[order[place]]
        first[segment.start : segment.end] = place
    return Found(first[evidence], len(order))


def rank(
    document: Document, segments: Sequence[Segment], engine: Engine | None, rankers: Sequence[str]
) -> dict[str, list[list[int]]]:
    """The order of the segments for each question of the document, by ranker."""
    texts = [segment.text for segment in segments]
    questions = [question.text for question in document.questions]
    orders = {}
    if "bm25" in rankers:
        index = Bm25(texts)
        orders["bm25"] = [index.ranked(question, len(texts)) for question in questions]
    if engine and set(rankers) != {"bm25"}:
        orders |= _by_model(engine, texts, questions)
    return {ranker: orders[ranker] for ranker in rankers}


def _by_model(
    engine: Engine, texts: Sequence[str], questions: Sequence[str]
) -> dict[str, list[list[int]]]:
    """The orders by each measure, by the sum of two measures' ranks, and by entropy minus that of
    a content-free question."""
    _check_fit(engine, texts, questions)
    measured = [*questions, CONTENT_FREE]
    pairs = [(text, question) for text in texts for question in measured]
    scores: dict[str, np.ndarray[Any, Any]] = {
        name: np.array(values, dtype=float).reshape(len(texts), len(measured)).T
        for name, values in _scores(engine, pairs).items()
    }
    orders: dict[str, list[list[int]]] = {
        name: [_order(row) for row in values[:-1]] for name, values in scores.items()
    }
    both = zip(orders["entropy"], orders["likelihood"], strict=True)
    orders["rank_sum"] = [_order(-(np.argsort(e) + np.argsort(p))) for e, p in both]
    entropy = scores["entropy"]
    orders["calibrated"] = [_order(row - entropy[-1]) for row in entropy[:-1]]
    return orders


def _scores(engine: Engine, pairs: Sequence[tuple[str, str]]) -> dict[str, list[float]]:
    features = engine.features(pairs, MEASURES)
    return {measure: [relevance(each, measure) for each in features] for measure in MEASURES}


def _order(scores: np.ndarray[Any, Any]) -> list[int]:
    return [int(i) for i in np.argsort(-scores, kind="stable")]


def _fitting(document: Document, engine: Engine | None) -> Document:
    """The document without questions too long for the method: no ranker gets those."""
    kept = tuple(a for a in document.questions if engine is None or _fits(engine, a.text))
    return replace(document, questions=kept)


def _fits(engine: Engine, question: str) -> bool:
    try:
        engine.suffix(question)
    except QuestionError:
        return False
    return True


def _questions(documents: Sequence[Document]) -> int:
    return sum(len(document.questions) for document in documents)


def _check_fit(engine: Engine, texts: Sequence[str], questions: Sequence[str]) -> None:
    """Raises SystemExit if a segment would be truncated to leave room for its question."""
    suffix = max(len(engine.suffix(question)) for question in questions)
    longest = max(engine.model.count_tokens(texts)) + suffix + len(engine.model.bos)
    if longest > engine.model.window:
        raise SystemExit(
            f"retrieval: a segment and its question take {longest} tokens of a window of "
            f"{engine.model.window}: leave --segment-words out, or take --rankers bm25"
        )


def _count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


# --- figures ------------------------------------------------------------------------------


def _row(name: str, ranker: str, found: Sequence[Found], refused: int) -> dict[str, Any]:
    first = [int(f.ranks.min()) + 1 for f in found]
    recall = {
        f"evidence_recall_{k}": float(np.mean([(f.ranks < k).mean() for f in found])) for k in KS
    }
    return {
        "set": name,
        "ranker": ranker,
        "questions": len(found),
        "refused": refused,
        "segments": float(np.median([f.segments for f in found])),
        **recall,
        "median_rank": float(np.median(first)),
        "rank_90": float(np.percentile(first, 90)),
    }


def _plot(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    panels: dict[str, dict[str, plots.Points]] = {}
    for row in rows:
        points = [(float(k), float(row[f"evidence_recall_{k}"])) for k in KS]
        panels.setdefault(str(row["set"]), {})[str(row["ranker"])] = points
    plots.lines(out / "retrieval.png", panels, "k segments", "evidence recall")
