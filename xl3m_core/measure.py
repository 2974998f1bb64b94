"""Logits -> certainty: how sure the model is of what follows the question.

The paper's measure (arXiv 2405.17755) is the Shannon entropy of the next-token distribution
after the question: low entropy, relevant segment. `top_p` is the entropy of the nucleus, without
the unlikely tokens (as in NBCE); `likelihood` how well the segment predicts the question itself
(as in LongLLMLingua); `hybrid` both: log p of the whole question, minus the entropy of the next
token.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from xl3m_core.method import Measure

IGNORE_INDEX = -100
TOP_P = 0.95


def logits_needed(measures: Iterable[Measure], question_tokens: int) -> int:
    """How many last positions of a row the measures need the logits of."""
    return 1 if set(measures) <= {"entropy", "top_p"} else question_tokens + 1


def certainty(logits: Tensor, question: Tensor, measure: Measure = "entropy") -> Tensor:
    """The score of each row (B,), in nats: at most 0, and higher is more certain.

        row      ... segment | q1  q2 ... qm        logits[:, -1] predicts the answer,
        logits            p0 | p1  p2 ... pm        logits[:, -1-i] predicts question[:, -i]

    logits: (B, P, V), the last P positions of left-padded rows. question: (B, m), the
    question's token ids against the right edge, IGNORE_INDEX where a row's question is shorter.
    A row whose logits are NaN gets -inf, the lowest score.
    """
    if measure == "entropy":
        score = -entropy(logits[:, -1])
    elif measure == "top_p":
        score = -entropy(nucleus(logits[:, -1]))
    elif measure == "likelihood":
        score = likelihood(logits, question)
    else:
        whole = likelihood(logits, question) * (question != IGNORE_INDEX).sum(dim=-1)
        score = whole - entropy(logits[:, -1])
    return torch.nan_to_num(score, nan=-torch.inf, posinf=0.0, neginf=-torch.inf)


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


def likelihood(logits: Tensor, question: Tensor) -> Tensor:
    """Mean log probability, in nats a token, of question (B, m) in logits (B, >m, V) -> (B,)."""
    m = question.shape[1]
    log_p = torch.log_softmax(logits[:, -m - 1 : -1].float(), dim=-1)
    is_token = question != IGNORE_INDEX
    picked = log_p.gather(-1, question.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return picked.where(is_token, 0.0).sum(dim=-1) / is_token.sum(dim=-1)
