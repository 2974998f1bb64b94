"""Padding, and attention masks: of padded rows, and of several suffixes after one prefix.

branch_ids    0  0  0  1  1  2  2     a suffix attends to the prefix and to itself, and has
position_ids  0  1  2  3  4  3  4     the positions right after the prefix, as if alone
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_left(
    rows: Sequence[Sequence[int]], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, W) of rows, no longer than W.

    pad pad BOS s1 s2 q1 q2     every row ends in the last column, so that the last
    BOS s1  s2  s3 s4 q1 q2     positions are the same columns of all rows
    """
    padding = torch.tensor([width - len(row) for row in rows], device=device)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = (torch.arange(width, device=device) >= padding[:, None]).long()
    return ids.to(device), mask


def position_ids(mask: Tensor) -> Tensor:
    """Position ids (B, W) of rows padded on the left, by a mask (B, W) of 0 and 1: the first token
    of each row has position 0."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `visible`, of any shape, is true, else the dtype's lowest number: to be added to
    attention scores."""
    zeros = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return zeros.masked_fill_(~visible, torch.finfo(dtype).min)


def shared_prefix_mask(branch_ids: Tensor, last: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The mask (B, 1, last, T) of the last tokens, to be added, and their position ids (B, last).

    branch_ids: (B, T), 0 for a token of the prefix, n for one of the nth suffix, -1 for padding,
    which no token attends to.
    """
    keys, queries = branch_ids[:, None, :], branch_ids[:, -last:, None]
    visible = (keys == 0) | ((keys == queries) & (keys > 0))
    visible = visible.tril(branch_ids.shape[1] - last)
    return additive_mask(visible, dtype)[:, None], (visible.sum(-1) - 1).clamp(min=0)
