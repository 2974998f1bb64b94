"""Whether the method finds and reads one line among look-alikes, by length, depth and variant.

A short text has one needle, so that every trial is independent. A long one has a needle at each
depth, scored together, so that its segments go through the model once. All measures rank the same
forward passes; answers are generated for the method's own measure, from its k segments and from
others.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.haystack import VARIANTS, Haystack, Needle
from training import plots
from xl3m_core import XL3M, Engine, Measure, Segment
from xl3m_core.method import MEASURES
from xl3m_core.relevance import relevance

LENGTHS = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000)
SHORT = (1_000, 4_000, 16_000)
DEPTHS = tuple(i / 10 for i in range(11))
SEGMENTS = 128  # scored in one call
ALONE = 32_000
"""Texts of up to this many tokens have one needle each."""
TEXTS = {length: 3 for length in LENGTHS if length < 100_000}
"""How many texts of each length, at every depth; one of each longer length."""
RANKERS = (*MEASURES, "rank_sum")
KS = (1, 2, 4)
"""Other numbers of segments to answer from: they tell errors of retrieval from those of reading."""


def add_arguments(parser: Any) -> None:
    """The options of this benchmark."""
    parser.add_argument("--measure", choices=MEASURES, default=MEASURES[0], help="to answer by")
    parser.add_argument("--k", type=int, help="segments in the key context, at most")
    parser.add_argument("--depths", type=float, nargs="+", default=DEPTHS)


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per variant and length."""
    engine = XL3M.load(args.model, measure=args.measure, k=args.k).engine
    lengths, k = args.lengths or (SHORT if args.short else LENGTHS), engine.method.k
    rows = []
    for variant in args.variants or VARIANTS:
        grid = []
        for tokens in lengths:
            found = list(_trials(engine, tokens, variant, args))
            at = [[t.exact[k] for t in found if t.needle.depth == depth] for depth in args.depths]
            grid.append([mean(exact) for exact in at])
            rows.append(_row(variant, tokens, found, k))
            print(rows[-1], flush=True)
        path = Path(args.out) / f"needle_{variant}.png"
        names = ([f"{tokens:,}" for tokens in lengths], [f"{d:.0%}" for d in args.depths])
        plots.heat_map(path, grid, *names, f"{variant}: exact match", "depth", "tokens")
    return rows


@dataclass(slots=True)
class Trial:
    """One needle: the scores of all segments, the ranks of its evidence, and the answers."""

    needle: Needle
    scores: dict[Measure, list[float]] = field(default_factory=dict)
    evidence: list[list[int]] = field(default_factory=list)
    best: dict[int, Segment] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    recalled: bool = False
    exact: dict[int, bool] = field(default_factory=dict)
    """Whether the answer was exact, by the number of segments in the prompt."""


def _trials(engine: Engine, tokens: int, variant: str, args: argparse.Namespace) -> Iterator[Trial]:
    groups = [(depth,) for depth in args.depths] if tokens <= ALONE else [tuple(args.depths)]
    texts = args.texts or (1 if args.short else TEXTS.get(tokens, 1))
    for n, depths in enumerate(groups * texts):
        seed = args.seed + 7919 * n + tokens
        haystack = Haystack(engine.model.count_tokens, tokens, variant, seed, depths)
        trials = [Trial(needle, {each: [] for each in MEASURES}) for needle in haystack.needles]
        _scan(engine, haystack, trials, f"{variant} {tokens:,}")
        for trial in trials:
            _judge(engine, trial)
        yield from trials


def _scan(engine: Engine, haystack: Haystack, trials: list[Trial], name: str) -> None:
    """Score all segments for all needles, and keep the texts of the best ones only."""
    for trial in trials:
        trial.evidence = [[] for _ in trial.needle.lines]
    bar = tqdm(
        total=haystack.tokens, unit="tok", unit_scale=True, desc=name, disable=None, leave=False
    )
    segments = chain.from_iterable(engine.segmenter().batches(haystack, 1))
    while batch := list(islice(segments, SEGMENTS)):
        pairs = [(segment.text, t.needle.question) for segment in batch for t in trials]
        features = engine.features(pairs, MEASURES)
        scores = {each: [relevance(found, each) for found in features] for each in MEASURES}
        for i, trial in enumerate(trials):
            for each in MEASURES:
                trial.scores[each] += scores[each][i :: len(trials)]
            _keep(engine, trial, batch)
        bar.update(batch[-1].end_token - bar.n)
    bar.close()


def _keep(engine: Engine, trial: Trial, batch: list[Segment]) -> None:
    """Record where the evidence is, and keep the best segments by the method's measure, sorted."""
    trial.best |= {segment.index: segment for segment in batch}
    scores = trial.scores[engine.method.measure]
    best = sorted(trial.best, key=lambda i: (-scores[i], i))[: max(engine.method.k, *KS)]
    trial.best = {i: trial.best[i] for i in best}
    for line, places in zip(trial.needle.lines, trial.evidence, strict=True):
        places += [segment.index for segment in batch if line.strip() in segment.text]


def _judge(engine: Engine, trial: Trial) -> None:
    """Rank the evidence by every measure; answer by the method's own."""
    arrays: dict[str, Any] = {name: np.array(trial.scores[name]) for name in MEASURES}
    places = {name: _places(scores) for name, scores in arrays.items()}
    places["rank_sum"] = _places(-(places["entropy"] + places["likelihood"]).astype(float))
    for name in RANKERS:
        of_lines = [min((int(places[name][i]) for i in at), default=-1) for at in trial.evidence]
        trial.ranks[name] = max(of_lines) if min(of_lines) >= 0 else len(places[name])
    trial.recalled = trial.ranks[engine.method.measure] < engine.method.k
    for k in sorted({*KS, engine.method.k}):
        trial.exact[k] = _answered(engine, trial, k)
    trial.scores = {}


def _answered(engine: Engine, trial: Trial, k: int) -> bool:
    needle = trial.needle
    context = engine.assemble(list(trial.best.values())[:k], needle.question)
    return engine.answer(context, needle.question).text == needle.answer


def _places(scores: Any) -> Any:
    """Each segment's rank, 0 for the most certain; the earlier segment wins a tie."""
    places = np.empty(len(scores), dtype=np.int64)
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return places


def _row(variant: str, tokens: int, trials: list[Trial], k: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "variant": variant,
        "tokens": tokens,
        "questions": len(trials),
        "exact_match": mean(trial.exact[k] for trial in trials),
        "evidence_recall": mean(trial.recalled for trial in trials),
    }
    row |= {f"exact_match_k{n}": mean(trial.exact[n] for trial in trials) for n in KS}
    for name in RANKERS:
        ranks = sorted(trial.ranks[name] for trial in trials)
        row[f"first4_{name}"] = mean(rank < 4 for rank in ranks)
        row[f"rank90_{name}"] = ranks[int(0.9 * (len(ranks) - 1))]
    return row
