"""Packed: rows of any length one behind the other, none padded but where they attend.

    ids     a1 a2 a3 b1 c1 c2       what is done token by token is done in one row of all
    places  0  1  2  0  0  1

    grids   a1 a2 a3    c1 c2       where tokens look at others each row has its own, a few rows
            b1 .  .                 of them in a grid each; what stands behind a row is seen by
                                    none of its tokens

Knows lengths and tensors; no network.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

WORTH = 1.05
"""Tokens with padding over those without, from which on to pack costs less than to pad."""
TOGETHER = 8
"""Rows in a grid: as many of 100 tokens as attention takes at a time."""
EVEN = 8
"""Grids are a multiple of this wide: of few shapes, each of which has to be prepared."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Packed:
    """Rows of these lengths, none of them empty; best of about the same one by one. places: of each
    token in its row, (N,); no_mask: what says that there is none but the rows' own order."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.no_mask = torch.zeros(1, 1, 1, 1, device=device)
        ends = [*accumulate(lengths)]
        self._ends = torch.tensor(ends, device=device)
        starts = [0, *ends][:-1]
        rows = [slice(at, at + TOGETHER) for at in range(0, len(lengths), TOGETHER)]
        self.grids = [Grid(starts[some], lengths[some], device) for some in rows]
        self.places = torch.cat([grid.places for grid in self.grids])

    def last(self, keep: int) -> Tensor:
        """Where the last `keep` tokens of each row stand, which has as many: (B * keep)."""
        return (self._ends[:, None] + torch.arange(-keep, 0, device=self._ends.device)).flatten()

    def attended(self, attend: Attend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """What each token gathers, (1, N, H, D), of queries, keys and values (1, H, N, D), by an
        attention of rows as they stand in a grid: (B, H, T, D) each -> (B, T, H, D)."""
        gathered = value.new_empty(len(self.places), query.shape[1], value.shape[-1])
        three = [packed[0].transpose(0, 1).contiguous() for packed in (query, key, value)]
        for grid in self.grids:
            found = attend(*map(grid.spread, three))
            torch.index_select(found.flatten(0, 1), 0, grid.tokens, out=gathered[grid.own])
        return gathered[None]


class Grid:
    """Some rows of a packed one, which begin at `starts` there and have these lengths. own: what
    of the packed row is theirs; tokens: where these stand in the grid."""

    def __init__(self, starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> None:
        self.rows, self.width = len(lengths), -(-max(lengths) // EVEN) * EVEN
        self.own = slice(starts[0], starts[-1] + lengths[-1])
        sizes, first = (torch.tensor(each, device=device)[:, None] for each in (lengths, starts))
        columns = torch.arange(self.width, device=device).expand(self.rows, -1)
        taken = columns < sizes
        self.places = columns[taken]
        self.tokens = taken.flatten().nonzero()[:, 0]
        self._from = torch.where(taken, first + columns, 0)
        self._by_heads = dict[int, Tensor]()

    def spread(self, packed: Tensor) -> Tensor:
        """(N, H, D), in a row -> (B, H, T, D), a row of the grid each."""
        heads, size = packed.shape[1:]
        each = packed.view(-1, size).index_select(0, self._of(heads))
        return each.view(self.rows, heads, self.width, size)

    def _of(self, heads: int) -> Tensor:
        """Of which token and head each place in the grid of each head is: (B * H * T)."""
        if heads not in self._by_heads:
            head = torch.arange(heads, device=self._from.device)[:, None]
            self._by_heads[heads] = (self._from[:, None] * heads + head).flatten()
        return self._by_heads[heads]


def worth_packing(lengths: Sequence[int]) -> bool:
    """Whether padding would be more than packing costs."""
    return len(lengths) * max(lengths) > WORTH * sum(lengths)
