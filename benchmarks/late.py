"""A question that comes late: what scoring a twentieth of the log first has found.

BM25 names that twentieth, as it does for a query over a long log, and the model scores it. Found:
all lines of the needle are in the k most certain. `exact`: the same when all is scored. Knows
the scout's order and the engine; no Redis.
"""

import argparse
import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import chain
from typing import Any

from tqdm import tqdm

from benchmarks.haystack import VARIANTS, Haystack
from benchmarks.needle import DEPTHS
from benchmarks.ratios import Ratio
from stream_app.scoring import SCOUTED_SHARE
from stream_app.scout import BLOCK, best
from xl3m_core import XL3M, Engine, Segment, TopK

TOKENS, SHORT_TOKENS = 256_000, 16_000


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a variant."""
    engine = XL3M.load(args.model).engine
    tokens = args.lengths[0] if args.lengths else SHORT_TOKENS if args.short else TOKENS
    variants = args.variants or VARIANTS
    return [_row(engine, v, tokens, args.seed) for v in tqdm(variants, desc="late", disable=None)]


def _row(engine: Engine, variant: str, tokens: int, seed: int) -> dict[str, Any]:
    haystack = Haystack(engine.model.count, tokens, variant, seed, DEPTHS)
    segments = list(chain.from_iterable(engine.segmenter().batches(haystack, 1)))
    most = math.ceil(SCOUTED_SHARE * len(segments))
    needles, first, exact = haystack.needles, 0, 0
    pairs = [(segment.text, needle.question) for segment in segments for needle in needles]
    scores = engine.score(pairs)
    for i, needle in enumerate(needles):
        each = scores[i :: len(needles)]
        named = asyncio.run(best(_blocks(segments), needle.question, most))
        first += needle.told_by(found(segments, each, named, engine.method.k))
        exact += needle.told_by(found(segments, each, range(len(segments)), engine.method.k))
    return {
        "variant": variant,
        "tokens": tokens,
        "share_scored": most / len(segments),
        "evidence_recall": first / len(needles),
        "evidence_recall_exact": exact / len(needles),
    }


def ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """Evidence found, of all there is."""
    return [Ratio(f"{r['variant']} found early", r["evidence_recall"], "0.95") for r in rows]


def found(
    segments: Sequence[Segment], scores: Sequence[float], scored: Iterable[int], k: int
) -> list[str]:
    """The k most certain of the segments that were scored."""
    top = TopK(k)
    for place in scored:
        top.add(place, scores[place])
    return [segments[place].text for place, _ in top.best()]


async def _blocks(segments: Sequence[Segment]) -> AsyncIterator[Sequence[Segment]]:
    for start in range(0, len(segments), BLOCK):
        yield segments[start : start + BLOCK]
