"""SharedState: rows that a network with a running state reads once, and suffixes read after them.

A state goes from token to token, so rows of one length go together, and each suffix continues from
a copy of what its row has left behind.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


class SharedState:
    """Rows of token ids, none of them empty, which are read on creation. keep_prefix: the number of
    last positions of each row whose logits are kept."""

    def __init__(
        self,
        forward: Callable[..., Any],
        device: torch.device,
        rows: Sequence[Sequence[int]],
        keep_prefix: int,
    ) -> None:
        self.forward, self.device = forward, device
        by_length: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            by_length.setdefault(len(row), []).append(i)
        self.groups = [*by_length.values()]
        self.order = torch.tensor([i for group in self.groups for i in group]).argsort()
        outputs = [self._read([rows[i] for i in group], keep_prefix) for group in self.groups]
        self.caches = [output.past_key_values for output in outputs]
        self.kept = [output.logits[:, -keep_prefix:] if keep_prefix else None for output in outputs]

    def suffix_logits(
        self, suffixes: Sequence[Sequence[int]], counts: Sequence[int]
    ) -> Iterator[Tensor]:
        """For each suffix the logits (B, count, V) of its last `count` positions; where the suffix
        is shorter, the row's last positions are among them."""
        for suffix, count in zip(suffixes, counts, strict=True):
            parts = [self._continued(n, suffix, count) for n in range(len(self.groups))]
            yield torch.cat(parts)[self.order.to(parts[0].device)]

    def _continued(self, group: int, suffix: Sequence[int], count: int) -> Tensor:
        """The suffix's last `count` logits after each row of the group, (b, count, V)."""
        own, cache = min(count, len(suffix)), copy.deepcopy(self.caches[group])
        rows = [suffix] * len(self.groups[group])
        logits: Tensor = self._read(rows, own, past_key_values=cache).logits[:, -own:]
        kept = self.kept[group]
        if kept is None or own == count:
            return logits
        before = kept[:, own - count :]
        missing = count - own - before.shape[1]  # any, before a row
        return torch.cat([before[:, :1].expand(-1, missing, -1), before, logits], dim=1)

    def _read(self, rows: Sequence[Sequence[int]], keep: int, **named: Any) -> Any:
        ids = torch.tensor(rows, device=self.device)
        return self.forward(input_ids=ids, use_cache=True, logits_to_keep=max(1, keep), **named)
