"""Attention over a prefix with several question suffixes, in rectangles without a mask.

    keys      prefix  suffix 1  suffix 2     a prefix attends to itself, causally
    prefix    tril                           a suffix attends to the whole prefix, and to
    suffix 1  all     tril                   itself causally; suffixes do not attend to each
    suffix 2  all               tril         other: that corner is never computed

Two to three times as fast as one masked square over the whole row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

NAME = "side_by_side"
MASKED = -1e30


def causal(length: int, like: Tensor) -> Tensor:
    """The additive mask (length, length) that hides from each token those behind it."""
    return torch.full((length, length), MASKED, dtype=like.dtype, device=like.device).triu(1)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    padding_mask: Tensor,
    scaling: float,
    suffixes: tuple[int, int],
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention's output (B, T, H, D), from query, key and value of (B, H, T, D) each.

    suffixes: how many (N) and how long (L); the first T - N * L tokens are the prefix.
    padding_mask: (B, 1, 1, T - N * L), added to hide the prefix's padding. Computed in the value's
    dtype.
    """
    prefix = query.shape[2] - suffixes[0] * suffixes[1]
    with torch.autocast(query.device.type, enabled=False):
        parts = [prefix, suffixes[0] * suffixes[1]]
        q, q_suffix = torch.split((query * scaling).to(value.dtype), parts, 2)
        k, k_suffix = torch.split(key.to(value.dtype), parts, 2)
        v, v_suffix = torch.split(value, parts, 2)
        padding_mask = padding_mask.to(value.dtype)
        of_prefix = (q @ k.mT + (causal(prefix, v) + padding_mask)).softmax(-1) @ v
        if not suffixes[0]:
            return of_prefix.transpose(1, 2), None
        to_prefix = _split(q_suffix @ k.mT + padding_mask, suffixes)
        q_suffix, k_suffix, v_suffix = (
            _split(each, suffixes) for each in (q_suffix, k_suffix, v_suffix)
        )
        to_itself = q_suffix @ k_suffix.mT + causal(suffixes[1], v)
        weights = torch.cat((to_prefix, to_itself), -1).softmax(-1)  # (B, H, N, L, prefix + L)
        on_prefix, on_itself = torch.split(weights, [prefix, suffixes[1]], -1)
        of_suffixes = on_prefix.flatten(2, 3) @ v + (on_itself @ v_suffix).flatten(2, 3)
        return torch.cat((of_prefix, of_suffixes), 2).transpose(1, 2), None


def _split(joined: Tensor, suffixes: tuple[int, int]) -> Tensor:
    """(B, H, N * L, X) -> (B, H, N, L, X)."""
    return joined.reshape(*joined.shape[:2], *suffixes, joined.shape[-1])


AttentionInterface.register(NAME, attention)
