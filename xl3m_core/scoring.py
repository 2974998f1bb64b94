"""Scoring: rows -> batches -> logits -> the score of each pair.

Used by the engine: `plan_batches` decides what goes through the model together, `score_batches`
runs it, on a worker thread, and writes the scores.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from xl3m_core.inference.batching import (
    Batch,
    Row,
    RowBatch,
    balanced_budget,
    batches,
    group_by_segment,
)
from xl3m_core.inference.model import LanguageModel
from xl3m_core.measure import IGNORE_INDEX, certainty, logits_needed
from xl3m_core.method import Measure

SCORE_DIGITS = 4  # a finer difference comes from the other rows of a batch, or from the cache


@dataclass(frozen=True, slots=True)
class Scores:
    """The score of each pair, in nats, and how many seconds the model worked on them."""

    values: list[float]
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
    model: LanguageModel, batches: Sequence[Batch], scores: dict[Measure, list[float]]
) -> float:
    """Score the batches, write each pair's scores, and return the seconds it took."""
    started = time.perf_counter()
    for batch in batches:
        for rows, logits in _logits(model, batch, [*scores]):
            _write_scores(scores, rows, logits)
    return time.perf_counter() - started


def _logits(
    model: LanguageModel, batch: Batch, measures: Sequence[Measure]
) -> Iterator[tuple[Sequence[Row], Tensor]]:
    """Rows of the batch with the logits (B, P, V) of their last positions, part by part."""
    if isinstance(batch, RowBatch):
        keep = logits_needed(measures, max(len(row.suffix) for row in batch.rows))
        yield batch.rows, model.logits([row.prefix + row.suffix for row in batch.rows], keep)
        return
    counts = [logits_needed(measures, len(row.suffix)) for row in batch.rows[0]]
    suffix_logits = model.suffix_logits(batch.segments, batch.suffixes, counts)
    for column, logits in enumerate(suffix_logits):
        yield [group[column] for group in batch.rows], logits


def _write_scores(scores: dict[Measure, list[float]], rows: Sequence[Row], logits: Tensor) -> None:
    """Put the scores of rows with logits (B, P, V) in the places of their pairs."""
    question = _questions(rows).to(logits.device)
    for measure, written in scores.items():
        for row, score in zip(rows, certainty(logits, question, measure).tolist(), strict=True):
            written[row.pair] = round(score, SCORE_DIGITS)


def _questions(rows: Sequence[Row]) -> Tensor:
    """The rows' questions (B, m) against the right edge. The first token of a row without a prefix
    is left out, because nothing predicts it."""
    longest = max(len(row.suffix) for row in rows)
    predicted = [row.suffix if row.prefix else row.suffix[1:] for row in rows]
    return torch.tensor([[IGNORE_INDEX] * (longest - len(ids)) + list(ids) for ids in predicted])
