"""Fork: rows that are read once, and ends that are read behind them, each as if it were alone.

    BOS s1  s2 pad | q1 q2 | p1 p2 p3     an end sees the row and itself, and has the
    BOS s1  s2 s3  | q1 q2 | p1 p2 p3     places right behind the row

The rows are filled behind, where none of their tokens looks, so they are read without a mask. Their
keys and values are kept until all ends are read. Knows a network; not what rows and ends say.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from xl3m_core.inference.batching import MAX_SUFFIX_TOKENS, pad_right, split_by_budget
from xl3m_core.inference.masks import shared_prefix_mask


class SharedPrefix:
    """Rows of token ids, none of them empty, read when it is made; `most`: as many of each row's
    last logits are kept."""

    def __init__(
        self,
        forward: Callable[..., Any],
        dtype: torch.dtype,
        device: torch.device,
        rows: Sequence[Sequence[int]],
        most: int,
    ) -> None:
        self.forward, self.dtype = forward, dtype
        self.cache: Any = DynamicCache()
        lengths, width = [*map(len, rows)], max(map(len, rows))
        ids = torch.tensor([*pad_right(rows, [width] * len(rows))], device=device)
        places = torch.arange(width, device=device).expand(len(rows), -1)
        ends = torch.tensor(lengths, device=device)[:, None]
        self.branch_ids = (places < ends).long() - 1  # the start's, or nobody's
        last = (ends + torch.arange(-most, 0, device=device)).clamp(0)  # before its start: any
        kept, where = torch.unique(last, return_inverse=True)
        logits = self._read(ids, None, places, kept.tolist() or [0])
        self.prefix_length = logits.take_along_dim(where[..., None], dim=1)

    def suffix_logits(self, ends: Sequence[Sequence[int]], keep: Sequence[int]) -> Iterator[Tensor]:
        """Of each end the last so many (B, keep, V), the row's among them where it is shorter."""
        counts = iter(keep)
        for group in split_by_budget(ends, len, MAX_SUFFIX_TOKENS):
            kept = [next(counts) for _ in group]
            for end, own, count in zip(group, self._suffixes(group, kept), kept, strict=True):
                before = self.prefix_length[
                    :, self.prefix_length.shape[1] - max(0, count - len(end)) :
                ]
                yield torch.cat([before, own], dim=1)

    def _suffixes(self, ends: Sequence[Sequence[int]], keep: Sequence[int]) -> Sequence[Tensor]:
        """Their own logits, as far as they are kept."""
        device, rows = self.branch_ids.device, len(self.branch_ids)
        ids = torch.tensor([token for end in ends for token in end], device=device)
        turns = torch.tensor([n for n, end in enumerate(ends, 1) for _ in end], device=device)
        turns = torch.cat([self.branch_ids, turns.expand(rows, -1)], dim=1)
        sight, places = shared_prefix_mask(turns, len(ids), self.dtype)
        sizes = [min(count, len(end)) for end, count in zip(ends, keep, strict=True)]
        kept = _last([*map(len, ends)], sizes)
        logits = self._read(ids.expand(rows, -1), sight, places, kept)
        self.cache.crop(-len(ids))
        return torch.split(logits, sizes, dim=1)

    def _read(
        self, ids: Tensor, mask: Tensor | None, places: Tensor, kept: Sequence[int]
    ) -> Tensor:
        """Logits (B, kept, V) of ids behind what was read, which then are read as well."""
        output = self.forward(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=torch.tensor(kept, device=ids.device),
        )
        logits: Tensor = output.logits
        return logits


def _last(sizes: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Where the last tokens stand of ends of those sizes in a row, of each as many as counted."""
    columns, stop = list[int](), 0
    for size, count in zip(sizes, counts, strict=True):
        stop += size
        columns += range(stop - count, stop)
    return columns
