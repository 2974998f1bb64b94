"""Packed: rows of any length one behind the other, told apart only where they attend.

    ids     a1 a2 a3 b1 c1 c2       what is done token by token is done in one row of all
    places  0  1  2  0  0  1

    grids   a1 a2 a3    c1 c2       where tokens look at others each row has its own, a few rows
            b1 .  .                 of them in a grid each; what stands behind a row is seen by
                                    none of its tokens

Rows of about one length have what fills a grid in the one row too: that costs less than to move
them, and they still need no mask. Knows lengths and tensors; no network.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from operator import add

import torch
from torch import Tensor

from xl3m_core.inference.batching import pad_right

MAX_PADDING_RATIO = 1.05
"""Tokens of filled rows over those of the rows, from which on to move them costs less."""
ROWS_PER_GROUP = 8
"""Rows in a grid that they are moved to: as many of 100 tokens as attention takes at a time."""
WIDTH_MULTIPLE = 8
"""Such grids are a multiple of this wide: of few shapes, each of which has to be prepared."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class PackedBatch:
    """Rows of these lengths, none of them empty, each with so much room; best of about the same
    one by one. places: of each token in its row, (N,); no_mask: what says that there is none but
    the rows' own order."""

    def __init__(self, lengths: Sequence[int], room: Sequence[int], device: torch.device) -> None:
        self.no_mask = torch.zeros(1, 1, 1, 1, device=device)
        self.slots, starts = room, [0, *accumulate(room)][:-1]
        self._ends = torch.tensor([*map(add, starts, lengths)], device=device)
        together = ROWS_PER_GROUP if len({*room}) > 1 else len(room)
        rows = [slice(at, at + together) for at in range(0, len(room), together)]
        self.groups = [PaddedGroup(starts[some], room[some], device) for some in rows]
        self.position_ids = torch.cat([grid.position_ids for grid in self.groups])

    def ids(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The rows' ids in one, (N,), zeros where there is more room."""
        ids = [*chain.from_iterable(pad_right(rows, self.slots))]
        return torch.tensor(ids, device=self._ends.device)

    def last(self, keep: int) -> Tensor:
        """Where the last `keep` tokens of each row stand, which has as many: (B * keep)."""
        return (self._ends[:, None] + torch.arange(-keep, 0, device=self._ends.device)).flatten()

    def attended(self, attend: Attend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """What each token gathers, (1, N, H, D), of queries, keys and values (1, H, N, D), by an
        attention of rows as they stand in a grid: (B, H, T, D) each -> (B, T, H, D)."""
        gathered = value.new_empty(len(self.position_ids), query.shape[1], value.shape[-1])
        three = [packed[0].transpose(0, 1).contiguous() for packed in (query, key, value)]
        for grid in self.groups:
            found = attend(*map(grid.pad, three))
            grid.unpad(found, gathered[grid.own])
        return gathered[None]


class PaddedGroup:
    """Some rows of a packed one, which begin at `starts` there and have so much room. own: what of
    the packed row is theirs. Rows of one length lie there as they do here."""

    def __init__(self, starts: Sequence[int], room: Sequence[int], device: torch.device) -> None:
        self.rows, self.even = len(room), min(room) == max(room)
        self.width = max(room) if self.even else -(-max(room) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
        self.own = slice(starts[0], starts[-1] + room[-1])
        columns = torch.arange(self.width, device=device).expand(self.rows, -1)
        sizes, first = (torch.tensor(each, device=device)[:, None] for each in (room, starts))
        taken = columns < sizes
        self.position_ids = columns[taken]
        if not self.even:
            self._tokens = taken.flatten().nonzero()[:, 0]
            self._from = torch.where(taken, first + columns, 0)
        self._by_heads = dict[int, Tensor]()

    def pad(self, packed: Tensor) -> Tensor:
        """(N, H, D), in a row -> (B, H, T, D), a row of the grid each."""
        heads, size = packed.shape[1:]
        if self.even:
            return packed[self.own].view(self.rows, self.width, heads, size).transpose(1, 2)
        each = packed.view(-1, size).index_select(0, self._of(heads))
        return each.view(self.rows, heads, self.width, size)

    def unpad(self, found: Tensor, into: Tensor) -> None:
        """(B, T, H, D) -> (n, H, D), what is in the packed row of it."""
        if self.even:
            into.copy_(found.flatten(0, 1))
        else:
            torch.index_select(found.flatten(0, 1), 0, self._tokens, out=into)

    def _of(self, heads: int) -> Tensor:
        """Of which token and head each place in the grid of each head is: (B * H * T)."""
        if heads not in self._by_heads:
            head = torch.arange(heads, device=self._from.device)[:, None]
            self._by_heads[heads] = (self._from[:, None] * heads + head).flatten()
        return self._by_heads[heads]


def slots_of(lengths: Sequence[int]) -> Sequence[int]:
    """How much room each row gets in a packed one: what it needs, or as much as the longest where
    that costs less."""
    longest = [max(lengths)] * len(lengths)
    return lengths if sum(longest) > MAX_PADDING_RATIO * sum(lengths) else longest
