"""Late questions: how much evidence is found after the prefiltered twentieth of a log is scored.

Words pick that twentieth, as they do for a query over a long log, and the model scores it. A needle
is found if all its lines are in the k best segments. `exact`: the same once all is scored. With
--data real texts are asked about instead, see `late_texts`.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, product
from statistics import mean
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks.accuracy import late_texts
from benchmarks.accuracy.needle import DEPTHS
from benchmarks.harness.haystack import VARIANTS, Haystack
from benchmarks.harness.prefiltered import scored_first
from benchmarks.harness.timing import Ratio
from xl3m_core import XL3M, Engine, Segment, TopK

LENGTHS, SHORT_LENGTHS = (256_000,), (200_000,)  # shorter ones are scored in order
SHORT_VARIANTS = VARIANTS[:1]
ENOUGH = 33  # questions
TEXTS, SHORT_TEXTS = 3, 1  # of each length, with a question per depth


class Outcome(NamedTuple):
    """One question: the share of the log scored first, and when the evidence was found."""

    share: float
    early: bool
    exact: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark beside those of `needle` and `retrieval`."""
    parser.add_argument("--lines", type=int, help="the first ones of each text of --data; all")


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per variant and length; with --data, per set of texts."""
    engine = XL3M.load(args.model).engine
    if args.data:
        return late_texts.rows(args, engine)
    lengths = args.lengths or (SHORT_LENGTHS if args.short else LENGTHS)
    texts = args.texts or (SHORT_TEXTS if args.short else TEXTS)
    variants = args.variants or (SHORT_VARIANTS if args.short else VARIANTS)
    rows = [*product(variants, lengths)]
    return [
        _row(engine, variant, tokens, texts, args.seed)
        for variant, tokens in tqdm(rows, desc="late", disable=None)
    ]


def _row(engine: Engine, variant: str, tokens: int, texts: int, seed: int) -> dict[str, Any]:
    outcomes = list[Outcome]()
    for n in range(texts):
        own = seed + 7919 * n + tokens
        outcomes += _outcomes(
            engine, Haystack(engine.model.count_tokens, tokens, variant, own, DEPTHS)
        )
    return {
        "variant": variant,
        "tokens": tokens,
        "questions": len(outcomes),
        "share_scored": mean(each.share for each in outcomes),
        "evidence_recall": mean(each.early for each in outcomes),
        "evidence_recall_exact": mean(each.exact for each in outcomes),
    }


def _outcomes(engine: Engine, haystack: Haystack) -> Iterator[Outcome]:
    segments = list(chain.from_iterable(engine.segmenter().batches(haystack, 1)))
    needles = haystack.needles
    pairs = [(segment.text, needle.question) for segment in segments for needle in needles]
    scores = engine.score(pairs)
    for i, needle in enumerate(needles):
        each = scores[i :: len(needles)]
        named = scored_first(segments, needle.question, engine.method.k)
        early = needle.told_by(found(segments, each, named, engine.method.k))
        exact = needle.told_by(found(segments, each, range(len(segments)), engine.method.k))
        yield Outcome(len(named) / len(segments), early, exact)


def ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """The share of evidence found; fewer than ENOUGH questions decide nothing."""
    return [
        Ratio(
            f"{r['variant']}, {r['tokens']:,} tokens, found early",
            r.get("of_exact", r["evidence_recall"]),
            goal if r["questions"] >= ENOUGH else f"{goal} of {ENOUGH} questions or more",
        )
        for r in rows
        for goal in ("0.97 of the full scan" if "of_exact" in r else "0.95",)
    ]


def found(
    segments: Sequence[Segment], scores: Sequence[float], scored: Iterable[int], k: int
) -> list[str]:
    """The texts of the k most certain of the segments that were scored."""
    top = TopK(k)
    for place in scored:
        top.add(place, scores[place])
    return [segments[place].text for place, _ in top.best()]
