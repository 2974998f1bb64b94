"""Capability probes: what a network can do, found out by running the same rows in two ways.

A config is not trusted with this: there are hundreds of architectures. The probes are given
functions from token ids to logits, so they do not depend on a network.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Rows = Sequence[Sequence[int]]
Logits = Callable[[Rows, int], Tensor]
"""Rows, and how many of their last positions: (B, positions, V)."""
SuffixLogits = Callable[[Rows, Rows, Sequence[int]], Iterator[Tensor]]
"""Rows, suffixes, and how many last positions of each suffix: for each suffix (B, positions, V)."""


def can_pad(logits: Logits) -> bool:
    """Whether padding leaves a row's logits unchanged."""
    short, long = [1, 2, 3], [3, 2, 1, 2, 3, 1, 2]
    return logits_close(logits([short], 1)[0], logits([short, long], 1)[0])


def can_pack(logits: Logits, packed_logits: Logits) -> bool:
    """Whether packed rows have the logits they have alone, both of any length and of about one."""
    uneven, even = [[3, 1, 2, 3, 1], [1, 2], [2, 3, 3, 1]], [[3, 1, 2] * 7, [1, 3, 3, 2] * 5]
    for rows in (uneven, even):
        alone = [logits([row], 2)[0] for row in rows]
        try:
            packed = [*packed_logits(rows, 2)]
        except Exception:  # a foreign model may raise anything; padded rows are always right
            return False
        if not all(map(logits_close, alone, packed)):
            return False
    return True


def can_share_prefix(logits: Logits, suffix_logits: SuffixLogits) -> bool:
    """Whether suffixes after a shared prefix have the logits of whole rows."""
    prefixes, suffixes = [[3, 1], [1, 2, 3, 4]], [[3, 2], [2, 4, 3]]
    try:
        shared = [*suffix_logits(prefixes, suffixes, [4, 4])]
    except Exception:  # as above: whole rows are always right
        return False
    whole = [logits([prefix + suffix for prefix in prefixes], 4) for suffix in suffixes]
    return all(map(logits_close, whole, shared))


def is_bidirectional(logits: Logits) -> bool:
    """Whether a token changes the predictions before it, as in BERT."""
    one, other = (logits([[1, 2, 3, last]], 4)[0, 0] for last in (3, 4))
    return not logits_close(one, other)


def logits_close(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of logits (..., V) differ by no more than the rounding of their dtype."""
    p, q = one.float().log_softmax(-1), other.float().log_softmax(-1)
    rounding = 1e-3 if one.dtype == torch.float32 else 0.05
    return bool((p - q).abs().max() < rounding * p.abs().max())
