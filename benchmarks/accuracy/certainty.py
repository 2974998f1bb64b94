"""Checks the paper's finding on this model: the lower the entropy, the more answers are right.

The passages have every format and the length of a segment; half of them contain the evidence. An
answer without evidence counts as wrong. Columns in `_told` are of the half with the evidence.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from training import plots
from training.corpus.formats import ALL
from training.evaluate import SEGMENT, Score, auc, level, passages, score
from training.writer import Writer
from xl3m_core.inference.loading import BUNDLED_MODEL

COUNT, SHORT_COUNT, BINS = 200, 20, 10


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per bin of entropy, from certain to uncertain, with equally many passages each."""
    folder = args.model or BUNDLED_MODEL
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model.eval()
    writer = Writer(AutoTokenizer.from_pretrained(folder), 2_000_003 + args.seed, held_out=True)
    told, untold = list[Score](), list[Score]()
    for shape in tqdm(ALL, desc="certainty", disable=None):
        count, wanted = SHORT_COUNT if args.short else COUNT, level(shape, SEGMENT)
        told += score(model, passages(writer, wanted, count))
        untold += score(model, passages(writer, wanted, count, absent=True))
    return _rows(told, untold, Path(args.out))


def _rows(told: list[Score], untold: list[Score], out: Path) -> list[dict[str, Any]]:
    entropy = np.array([one.entropy for one in told + untold])
    exact = np.array([one.exact for one in told] + [False] * len(untold), float)
    parts = np.array_split(np.argsort(entropy, kind="stable"), BINS)
    points = [(float(entropy[part].mean()), float(exact[part].mean())) for part in parts]
    panels = {"accuracy against entropy": {"bins of equal size": points}}
    plots.lines(out / "certainty.png", panels, "entropy, nats", "exact match")
    half = slice(len(told))
    whole = {
        "rank_correlation": rank_correlation(entropy, exact),
        "rank_correlation_told": rank_correlation(entropy[half], exact[half]),
        "auc": auc([one.entropy for one in told], [one.entropy for one in untold]),
    }
    return [
        {"entropy": e, "exact_match": x, "passages": len(part), **whole}
        for (e, x), part in zip(points, parts, strict=True)
    ]


def rank_correlation(x: Any, y: Any) -> float:
    """Spearman's correlation, with ties at their mean rank; 0 if x or y is constant."""
    if min(np.ptp(x), np.ptp(y)) == 0:
        return 0.0
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _ranks(values: Any) -> Any:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
