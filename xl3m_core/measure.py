"""Logits -> raw numbers: how sure the model is of what follows the question, and of the question.

`relevance` makes a score of them.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from xl3m_core.method import Measure
from xl3m_core.question import IGNORE_INDEX
from xl3m_core.relevance import reads_question

TOP_P = 0.95
MIN_TOTAL = 1e-30
"""The smallest total of exponentials that float32 holds with all its digits, and some room."""


class Numbers(NamedTuple):
    """Raw numbers of one row, see `Features`; NaN if they were not wanted or the logits are NaN."""

    entropy: float
    nucleus: float
    likelihood: float


def logits_needed(measures: Collection[Measure], labels: Collection[int]) -> int:
    """How many last positions of a row the measures need the logits of. labels: see `numbers`."""
    if not reads_question(measures):
        return 1
    ignored = next((i for i, label in enumerate(labels) if label != IGNORE_INDEX), len(labels))
    return len(labels) - ignored + 1


def numbers(logits: Tensor, labels: Tensor, measures: Collection[Measure]) -> list[Numbers]:
    """The raw numbers that the measures need, row by row.

        row      ... segment | q1  q2 ... qm        logits[:, -1] predicts the answer,
        logits            p0 | p1  p2 ... pm        logits[:, -1-i] predicts labels[:, -i]

    logits: (B, P, V), the last P positions of left-padded rows. labels: (B, m), the tokens of the
    suffix against the right edge, IGNORE_INDEX for those that are not the question's.
    """
    last = logits[:, -1]
    unknown = torch.full(last.shape[:1], math.nan)
    columns = (
        entropy(last),
        entropy(nucleus(last)) if "top_p" in measures else unknown,
        log_likelihood(logits, labels) if reads_question(measures) else unknown,
    )
    return [Numbers(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy, in nats, of the softmax of logits (B, V) -> (B,)."""
    log_p = torch.log_softmax(logits.float(), dim=-1)
    total: Tensor = torch.special.entr(log_p.exp()).sum(dim=-1)
    return total


def nucleus(logits: Tensor, p: float = TOP_P) -> Tensor:
    """Log probabilities (B, V) of logits (B, V), the most likely first: the fewest whose sum is at
    least p, and -inf after them."""
    log_p = torch.log_softmax(logits.float(), dim=-1).sort(dim=-1, descending=True).values
    before = log_p.exp().cumsum(dim=-1) - log_p.exp()
    return log_p.masked_fill(before >= p, -torch.inf)


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Log probability, in nats, of the labels (B, m) in logits (B, P, V) -> (B,).

    Positions before the first label that counts are not read, and may be missing from the logits.
    """
    m = min(labels.shape[1], logits.shape[1] - 1)
    predictions, labels = logits[:, -m - 1 : -1], labels[:, labels.shape[1] - m :]
    return token_log_probs(predictions, labels).sum(dim=-1)


def token_log_probs(predictions: Tensor, labels: Tensor) -> Tensor:
    """Log probability of each label (B, m) in predictions (B, m, V); 0 for IGNORE_INDEX."""
    predictions = predictions.float()
    picked = predictions.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (picked - log_totals(predictions)).where(labels != IGNORE_INDEX, 0.0)


def log_totals(logits: Tensor) -> Tensor:
    """`logsumexp` of logits (B, m, V) in float32 -> (B, m), in half of its time on a CPU.

    Row by row, which stays in the CPU's cache, and without subtracting the largest logit where no
    exponential is too large or too small.
    """
    totals = torch.stack([row.exp().sum(dim=-1) for row in logits])
    if totals.numel() and totals.amin() > MIN_TOTAL and totals.amax() < torch.inf:
        return totals.log()
    return logits.logsumexp(dim=-1)
