"""How many look-up questions are answered rightly: LogQA's, each over its whole log.

Right: the answer that LogQA gives stands in the answer as whole words. `pipeline` reads the k best
segments by the method's measure, `bm25` the k best by BM25, with the same model; `auto` and `free`
are ways to an answer (see `reader`). With --candidates the model scores only the best by BM25, as
it does first for a late question; without, every segment.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks.accuracy.datasets import read_log
from benchmarks.harness.timing import Ratio
from stream_app.scoring.bm25 import Bm25
from xl3m_core import XL3M, Engine, Segment, Tail
from xl3m_core.grounding import is_grounded
from xl3m_core.method import ANSWER_MODES, AnswerMode
from xl3m_core.reader import Reader

QUESTIONS, SHORT_QUESTIONS = 100, 6
SEED = 0
LOGS = "logqa/*/*_structured.csv"
MODES: tuple[AnswerMode, ...] = ("auto", "free")
Z = 1.959964
"""Of a two-sided 95 % interval."""


class LookUp(NamedTuple):
    """A question about a log, and the answer that LogQA gives."""

    log: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One question, by one ranker in one mode; seconds: from the ranked segments to the answer."""

    ranker: str
    mode: AnswerMode
    is_right: bool
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark; it also heeds --data and --questions."""
    parser.add_argument(
        "--candidates", type=int, help="segments a question that the model scores; default: all"
    )
    parser.add_argument("--modes", nargs="+", choices=ANSWER_MODES, default=MODES)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per ranker and mode; nothing without --data."""
    if not args.data:
        return []
    engine = XL3M.load(args.model).engine
    logs = {log.name: log.text for log in map(read_log, sorted(args.data.glob(LOGS)))}
    segments = {name: _segments(engine, text) for name, text in logs.items()}
    count = args.questions or (SHORT_QUESTIONS if args.short else QUESTIONS)
    asked = tqdm(look_ups(args.data, count), desc="answers", disable=None)
    trials = [_trials(engine, segments[each.log], each, args) for each in asked]
    return [_row([*column], trials) for column in zip(*trials, strict=True)]


def look_ups(data: Path, count: int) -> list[LookUp]:
    """A sample of LogQA's questions, with a fixed seed."""
    every = [
        LookUp(part.parent.name, each["Question"], each["Answer"])
        for part in sorted(data.glob("logqa/*/qa.json.*"))
        for each in map(json.loads, part.read_text(encoding="utf-8").strip().splitlines())
    ]
    return random.Random(SEED).sample(every, min(count, len(every)))


def is_right(answer: str, given: str) -> bool:
    """Whether the given answer stands in an answer as whole words."""
    return is_grounded(given, [answer])


# --- answers ------------------------------------------------------------------------------


def _segments(engine: Engine, text: str) -> list[Segment]:
    tail, segments = engine.segmenter().push(Tail(), text)
    return segments + engine.segmenter().flush(tail)


def _trials(
    engine: Engine, segments: Sequence[Segment], asked: LookUp, args: argparse.Namespace
) -> list[Trial]:
    k, by_words = engine.method.k, Bm25([segment.text for segment in segments])
    order = by_words.ranked(asked.question, args.candidates or len(segments))
    candidates = [segments[i] for i in order]
    rankings = {"pipeline": _by_model(engine, candidates, asked.question), "bm25": candidates}
    return [
        _trial(engine, ranker, mode, ranked[:k], asked)
        for ranker, ranked in rankings.items()
        for mode in args.modes
    ]


def _by_model(engine: Engine, segments: Sequence[Segment], question: str) -> list[Segment]:
    scores = engine.score([(segment.text, question) for segment in segments])
    places = sorted(range(len(segments)), key=lambda i: (-scores[i], segments[i].index))
    return [segments[i] for i in places]


def _trial(
    engine: Engine, ranker: str, mode: AnswerMode, ranked: Sequence[Segment], asked: LookUp
) -> Trial:
    reader = Reader(engine.model, replace(engine.method, answer=mode), engine.executor, engine)
    started = time.perf_counter()
    context = reader.assemble(ranked, asked.question)
    answer = reader.answer(context, asked.question)
    seconds = time.perf_counter() - started
    return Trial(ranker, mode, is_right(answer.text, asked.answer), seconds)


# --- figures ------------------------------------------------------------------------------


def _row(own: Sequence[Trial], trials: Sequence[Sequence[Trial]]) -> dict[str, Any]:
    """A ranker's figures in a mode, and its p value against BM25 in each mode."""
    right, n = sum(trial.is_right for trial in own), len(own)
    low, high = wilson(right, n)
    row: dict[str, Any] = {
        "ranker": own[0].ranker,
        "mode": own[0].mode,
        "questions": n,
        "right": right / n,
        "low": low,
        "high": high,
        "seconds": sum(trial.seconds for trial in own) / n,
    }
    for column in zip(*trials, strict=True):
        if column[0].ranker == "bm25":
            pairs = [(a.is_right, b.is_right) for a, b in zip(own, column, strict=True)]
            row[f"p_bm25_{column[0].mode}"] = mcnemar(pairs)
    return row


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share, spread = right / n, Z**2 / n
    middle = share + spread / 2
    half = Z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def mcnemar(pairs: Sequence[tuple[bool, bool]]) -> float:
    """The two-sided p value of the exact test (McNemar 1947): of the questions that one of both
    answered rightly, how many are which one's, against a fair coin."""
    ours = sum(a and not b for a, b in pairs)
    theirs = sum(b and not a for a, b in pairs)
    n = ours + theirs
    tail = sum(math.comb(n, i) for i in range(min(ours, theirs) + 1)) / 2.0**n
    return min(1.0, 2 * tail)


def ratios(rows: Sequence[dict[str, Any]]) -> list[Ratio]:
    """What BM25's segments give in the free mode, against the pipeline's first mode."""
    shares = {(row["ranker"], row["mode"]): row["right"] for row in rows}
    return [
        Ratio(f"answered rightly, {mode}, less BM25's {other}", share - against, "above 0")
        for (ranker, mode), share in shares.items()
        for (rival, other), against in shares.items()
        if ranker == "pipeline" and rival == "bm25"
    ]
