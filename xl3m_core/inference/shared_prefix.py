"""SharedPrefix: rows that are read once, and suffixes read after them, each as if it were alone.

    BOS s1  s2 pad | q1 q2 | p1 p2 p3     a suffix attends to its row and to itself, and has
    BOS s1  s2 s3  | q1 q2 | p1 p2 p3     the positions right after the row

The rows are padded on the right, where none of their tokens attends, so they need no mask. Their
keys and values are cached until all suffixes are read.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from xl3m_core.inference.batching import MAX_SUFFIX_TOKENS, pad_right, split_by_budget
from xl3m_core.inference.masks import shared_prefix_mask


class SharedPrefix:
    """Rows of token ids, none of them empty, which are read on creation. keep_prefix: the number of
    last positions of each row whose logits are kept."""

    def __init__(
        self,
        forward: Callable[..., Any],
        dtype: torch.dtype,
        device: torch.device,
        rows: Sequence[Sequence[int]],
        keep_prefix: int,
    ) -> None:
        self.forward, self.dtype = forward, dtype
        self.cache: Any = DynamicCache()
        lengths, width = [*map(len, rows)], max(map(len, rows))
        ids = torch.tensor([*pad_right(rows, [width] * len(rows))], device=device)
        positions = torch.arange(width, device=device).expand(len(rows), -1)
        stops = torch.tensor(lengths, device=device)[:, None]
        self.branch_ids = (positions < stops).long() - 1  # 0: prefix, -1: padding
        last = (stops + torch.arange(-keep_prefix, 0, device=device)).clamp(0)  # any, before a row
        kept, where = torch.unique(last, return_inverse=True)
        logits = self._logits(ids, None, positions, kept.tolist() or [0])
        self.prefix_logits = logits.take_along_dim(where[..., None], dim=1)  # (B, keep_prefix, V)

    def suffix_logits(
        self, suffixes: Sequence[Sequence[int]], counts: Sequence[int]
    ) -> Iterator[Tensor]:
        """For each suffix the logits (B, count, V) of its last `count` positions; where the suffix
        is shorter, the row's last positions are among them."""
        remaining = iter(counts)
        for group in split_by_budget(suffixes, len, MAX_SUFFIX_TOKENS):
            kept = [next(remaining) for _ in group]
            for suffix, own, count in zip(group, self._own_logits(group, kept), kept, strict=True):
                start = self.prefix_logits.shape[1] - max(0, count - len(suffix))
                yield torch.cat([self.prefix_logits[:, start:], own], dim=1)

    def _own_logits(
        self, suffixes: Sequence[Sequence[int]], counts: Sequence[int]
    ) -> Sequence[Tensor]:
        """The logits of the suffixes' own last positions, (B, at most count, V) each."""
        device, rows = self.branch_ids.device, len(self.branch_ids)
        ids = torch.tensor([token for suffix in suffixes for token in suffix], device=device)
        own_ids = [n for n, suffix in enumerate(suffixes, 1) for _ in suffix]
        own_branch_ids = torch.tensor(own_ids, device=device).expand(rows, -1)
        branch_ids = torch.cat([self.branch_ids, own_branch_ids], dim=1)
        mask, positions = shared_prefix_mask(branch_ids, len(ids), self.dtype)
        sizes = [min(count, len(suffix)) for suffix, count in zip(suffixes, counts, strict=True)]
        kept = _last_columns([*map(len, suffixes)], sizes)
        logits = self._logits(ids.expand(rows, -1), mask, positions, kept)
        self.cache.crop(-len(ids))
        return torch.split(logits, sizes, dim=1)

    def _logits(
        self, ids: Tensor, mask: Tensor | None, positions: Tensor, kept: Sequence[int]
    ) -> Tensor:
        """Logits (B, kept, V) at the kept columns of ids (B, W), which extend the cache.

        mask: (B, 1, W, T), added to the scores of all T cached and new tokens; positions: (B, W).
        """
        output = self.forward(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=torch.tensor(kept, device=ids.device),
        )
        logits: Tensor = output.logits
        return logits


def _last_columns(sizes: Sequence[int], counts: Sequence[int]) -> list[int]:
    """The columns of the last `count` tokens of each suffix, where suffixes of these sizes stand
    one after the other."""
    columns, stop = list[int](), 0
    for size, count in zip(sizes, counts, strict=True):
        stop += size
        columns += range(stop - count, stop)
    return columns
