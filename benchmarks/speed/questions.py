"""What more standing questions cost: the time to score the same segments for 1, 2, … 32.

Every count is timed in each round; the figure is the median of the ratios to one question. Scored
one by one, n questions would cost n times as much.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks.harness.timing import Ratio, interleaved, ratio
from benchmarks.speed.scoring import engine_of_full_rows, made_up
from training import plots
from training.corpus.entities import Source
from training.corpus.generate import Level, draw, question
from xl3m_core import Engine, LanguageModel
from xl3m_core.inference.loading import BUNDLED_MODEL

COUNTS = (1, 2, 4, 8, 16, 32)
SEGMENTS, ROUNDS = 64, 4


class Cost(NamedTuple):
    """The cost of a number of questions: seconds, and the ratio to one question."""

    seconds: float
    of_one: float


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per length of segments and number of questions, and a plot."""
    model = LanguageModel.load(args.model or BUNDLED_MODEL)
    engines = {
        "short segments": Engine(model),
        "full rows": engine_of_full_rows(model),
    }
    rows = [
        {"segments": name, "questions": count, "of_one": cost.of_one, "seconds": cost.seconds}
        for name, engine in tqdm(engines.items(), desc="questions", disable=None)
        for count, cost in costs(engine, SEGMENTS, COUNTS, args.seed).items()
    ]
    series = {
        name: [(row["questions"], row["of_one"]) for row in rows if row["segments"] == name]
        for name in engines
    }
    path = Path(args.out) / "questions.png"
    plots.lines(path, {"cost": series}, "standing questions", "time over that of one question")
    return rows


def ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """The cost over that of one question."""
    goals = {8: "at most 1.6", 32: "at most 3.5"}
    return [
        Ratio(f"{row['questions']} questions, {row['segments']}", row["of_one"], goal)
        for row in rows
        if (goal := goals.get(row["questions"]))
    ]


def made_up_questions(count: int, seed: int) -> list[str]:
    """`count` different questions about lines of a log."""
    source, level = Source(Random(seed), held_out=True), Level(0, ("app", "sshd", "kafka"))
    records = [draw(source, level) for _ in range(count)]
    return [question(source, level, record.facts[0]) for record in records]


def costs(
    engine: Engine, segments: int, counts: Sequence[int], seed: int, device: str = "cpu"
) -> dict[int, Cost]:
    """The cost of each number of questions about that many segments; `counts` must include 1."""
    texts, questions = made_up(engine, segments), made_up_questions(max(counts), seed)
    calls = {
        count: partial(engine.score, [(s.text, each) for s in texts for each in questions[:count]])
        for count in counts
    }
    taken = interleaved(calls, ROUNDS, device)
    return {count: Cost(median(spent), ratio(spent, taken[1])) for count, spent in taken.items()}
