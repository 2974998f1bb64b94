"""Scoring: rows -> batches -> logits -> the raw numbers of each pair.

Used by the engine: `plan_batches` decides what goes through the model together, `score_batches`
runs it, on a worker thread, and writes the numbers.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from xl3m_core.features import Features
from xl3m_core.inference.batching import (
    Batch,
    Row,
    RowBatch,
    balanced_budget,
    batches,
    group_by_segment,
)
from xl3m_core.inference.model import LanguageModel
from xl3m_core.measure import Numbers, logits_needed, numbers
from xl3m_core.method import Measure
from xl3m_core.question import IGNORE_INDEX


@dataclass(frozen=True, slots=True)
class Scores:
    """The raw numbers of each pair, and how many seconds the model worked on them."""

    features: list[Features]
    seconds: float


def plan_batches(
    model: LanguageModel, rows: Sequence[Row], batch_tokens: int, workers: int
) -> tuple[list[Batch], int]:
    """The rows in batches, split evenly among the workers, and the number of tokens in all."""
    budget = max(1, batch_tokens // 2)
    shared, single = group_by_segment(rows, budget) if model.can_share_prefix else ([], rows)
    lengths = [*map(len, single)]
    all_lengths = [*lengths, *chain.from_iterable(batch.lengths for batch in shared)]
    budget = balanced_budget(all_lengths, batch_tokens, workers)
    planned: list[Batch] = [
        RowBatch([single[i] for i in chosen])
        for chosen in batches(lengths, budget, even=not model.can_pad)
    ]
    planned += chain.from_iterable(batch.split(budget) for batch in shared)
    return planned, sum(all_lengths)


def score_batches(
    model: LanguageModel,
    batches: Sequence[Batch],
    measures: Collection[Measure],
    scored: list[Numbers],
) -> float:
    """Score the batches, write what the measures need for each pair, and return the seconds it
    took."""
    started = time.perf_counter()
    for batch in batches:
        for rows, logits in _logits(model, batch, measures):
            labels = _labels(rows).to(logits.device)
            for row, found in zip(rows, numbers(logits, labels, measures), strict=True):
                scored[row.pair] = found
    return time.perf_counter() - started


def _logits(
    model: LanguageModel, batch: Batch, measures: Collection[Measure]
) -> Iterator[tuple[Sequence[Row], Tensor]]:
    """Rows of the batch with the logits (B, P, V) of their last positions, part by part."""
    if isinstance(batch, RowBatch):
        keep = max(logits_needed(measures, row.labels) for row in batch.rows)
        yield batch.rows, model.logits([row.prefix + row.suffix for row in batch.rows], keep)
        return
    counts = [logits_needed(measures, row.labels) for row in batch.rows[0]]
    suffix_logits = model.suffix_logits(batch.segments, batch.suffixes, counts)
    for column, logits in enumerate(suffix_logits):
        yield [group[column] for group in batch.rows], logits


def _labels(rows: Sequence[Row]) -> Tensor:
    """The rows' labels (B, m) against the right edge."""
    longest = max(len(row.labels) for row in rows)
    padding = [[IGNORE_INDEX] * (longest - len(row.labels)) for row in rows]
    return torch.tensor([[*pad, *row.labels] for pad, row in zip(padding, rows, strict=True)])
