"""Outcomes: what a ranker found of each question's evidence, and rows of figures over them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.accuracy.ranking.evidence import Evidence
from benchmarks.accuracy.ranking.rankers import BASELINES, ORACLE
from benchmarks.harness.intervals import interval, paired
from xl3m_core import Segment

KS = (1, 4, 8, 16)
COMPARED = 4
"""The k of intervals and tests."""
ALL = "all"


class Outcome(NamedTuple):
    """One question and ranker. shares: of the evidence for each of KS; rank: from 1, of the first
    segment with any; tokens: of the COMPARED best segments; segments: how many were ranked."""

    document: int
    group: str
    shares: tuple[float, ...]
    rank: int
    tokens: float
    segments: int

    @property
    def compared(self) -> float:
        """The share in the COMPARED best."""
        return self.shares[KS.index(COMPARED)]


def ranked(
    document: int, group: str, evidence: Evidence, order: Sequence[int], segments: Sequence[Segment]
) -> Outcome:
    """The outcome of an order of the segments."""
    tokens = sum(segments[i].end_token - segments[i].start_token for i in order[:COMPARED])
    rank = min(evidence.ranks(order)) + 1
    return Outcome(document, group, tuple(evidence.shares(order, KS)), rank, tokens, len(segments))


def ideal(document: int, group: str, evidence: Evidence) -> Outcome:
    """The outcome of the best choice of segments for each k."""
    shares = tuple(evidence.best_share(k) for k in KS)
    return Outcome(document, group, shares, 1, float("nan"), evidence.segments)


def rows(
    head: Mapping[str, Any], found: Mapping[str, Sequence[Outcome]], chosen: Sequence[str]
) -> list[dict[str, Any]]:
    """One row a chosen ranker: over all questions, and over each group if there are several.

    head: columns that all rows begin with. found: by ranker, with BASELINES; all have the same
    questions in the same order.
    """
    groups = sorted({outcome.group for outcome in found[BASELINES[0]]})
    wanted = [ALL, *groups] if len(groups) > 1 else [ALL]
    return [_row(head, group, name, found) for group in wanted for name in chosen]


def _row(
    head: Mapping[str, Any], group: str, name: str, found: Mapping[str, Sequence[Outcome]]
) -> dict[str, Any]:
    some = {each: _of(group, outcomes) for each, outcomes in found.items()}
    outcomes = some[name]
    clusters = _clusters(found[name], group)
    low, high = interval([each.compared for each in outcomes], clusters)
    first = [each.rank for each in outcomes]
    shares = np.mean([each.shares for each in outcomes], axis=0)
    return {
        **head,
        "group": group,
        "ranker": name,
        "questions": len(outcomes),
        "segments": float(np.median([each.segments for each in outcomes])),
        "tokens": None if name == ORACLE else float(np.mean([each.tokens for each in outcomes])),
        **{f"evidence_recall_{k}": float(share) for k, share in zip(KS, shares, strict=True)},
        "low": low,
        "high": high,
        **_against(some, name, clusters),
        "median_rank": float(np.median(first)),
        "rank_90": float(np.percentile(first, 90)),
    }


def _against(
    found: Mapping[str, Sequence[Outcome]], name: str, clusters: Sequence[int]
) -> dict[str, float | None]:
    """The differences to the baselines, with their intervals and p values."""
    columns: dict[str, float | None] = {}
    ours = [each.compared for each in found[name]]
    for baseline in BASELINES:
        theirs = [each.compared for each in found[baseline]]
        test = paired(ours, theirs, clusters) if name != baseline else (None,) * 4
        names = (f"vs_{baseline}", f"vs_{baseline}_low", f"vs_{baseline}_high", f"p_{baseline}")
        columns |= dict(zip(names, test, strict=True))
    return columns


def _of(group: str, outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [each for each in outcomes if group in (ALL, each.group)]


def _clusters(outcomes: Sequence[Outcome], group: str) -> list[int]:
    """A number for each question of the group: its document's if the set has several."""
    documents = [outcome.document for outcome in _of(group, outcomes)]
    several = len({outcome.document for outcome in outcomes}) > 1
    return documents if several else list(range(len(documents)))
