"""Packed: rows of any length one behind the other, none padded but where they attend.

    ids     a1 a2 a3 b1 c1 c2       what is done token by token is done in one row of all
    places  0  1  2  0  0  1

    grid    a1 a2 a3                where tokens look at others each row has its own; what stands
            b1 .  .                 behind a row is seen by none of its tokens
            c1 c2 .

Knows lengths and tensors; no network.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

WORTH = 1.05
"""Tokens with padding over those without, from which on to pack costs less than to pad."""


class Packed:
    """Rows of these lengths, none of them empty. places: of each token in its row, (N,); shape:
    (B, T), that of the grid; no_mask: what says that there is none but the rows' own order."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        sizes = torch.tensor([*lengths], device=device)[:, None]
        starts = torch.tensor([0, *accumulate(lengths)][:-1], device=device)[:, None]
        columns = torch.arange(max(lengths), device=device)
        taken = columns < sizes
        self.no_mask = torch.zeros(1, 1, 1, 1, device=device)
        self.shape = (len(lengths), max(lengths))
        self.places = columns.expand(self.shape)[taken]
        self._grid = torch.where(taken, starts + columns, 0).flatten()
        self._tokens = taken.flatten().nonzero()[:, 0]
        self._ends = (starts + sizes)[:, 0]

    def last(self, keep: int) -> Tensor:
        """Where the last `keep` tokens of each row stand, which has as many: (B * keep)."""
        return (self._ends[:, None] + torch.arange(-keep, 0, device=self._ends.device)).flatten()

    def spread(self, packed: Tensor) -> Tensor:
        """(1, H, N, D) -> (B, H, T, D), a row of the grid each."""
        tokens = packed[0].transpose(0, 1).index_select(0, self._grid)
        return tokens.view(*self.shape, *tokens.shape[1:]).transpose(1, 2)

    def together(self, spread: Tensor) -> Tensor:
        """(B, T, H, D) -> (1, N, H, D), one behind the other again."""
        return spread.flatten(0, 1).index_select(0, self._tokens)[None]


def worth_packing(lengths: Sequence[int]) -> bool:
    """Whether padding would be more than packing costs."""
    return len(lengths) * max(lengths) > WORTH * sum(lengths)
