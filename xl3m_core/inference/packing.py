"""PackedBatch: rows of any length in one sequence, separated only within attention.

    ids           a1 a2 a3 b1 c1 c2     layers that work token by token see one row of all
    position_ids  0  1  2  0  0  1      tokens

    groups        a1 a2 a3    c1 c2     attention sees a few padded rows at a time; no token
                  b1 .  .               attends to the padding, which is after its row

Rows of about the same length are padded within that sequence instead: that costs less than copying
them into groups, and they need no mask either.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from operator import add

import torch
from torch import Tensor

from xl3m_core.inference.batching import pad_right

MAX_PADDING_RATIO = 1.05
"""Tokens with padding over tokens of the rows, above which copying costs less."""
ROWS_PER_GROUP = 8
"""Rows that are copied together: attention takes as many rows of 100 tokens at a time."""
WIDTH_MULTIPLE = 8
"""The width of such groups is a multiple of this: few shapes, since each must be prepared."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class PackedBatch:
    """Rows of these lengths, none of them empty, each in a slot of at least its length.

    Slots of similar size should be neighbours. position_ids: the position of each token in its
    row, (N,); no_mask: (1, 1, 1, 1), stands for the mask of later tokens only.
    """

    def __init__(self, lengths: Sequence[int], slots: Sequence[int], device: torch.device) -> None:
        self.no_mask = torch.zeros(1, 1, 1, 1, device=device)
        self.slots, starts = slots, [0, *accumulate(slots)][:-1]
        self._stops = torch.tensor([*map(add, starts, lengths)], device=device)
        count = ROWS_PER_GROUP if len({*slots}) > 1 else len(slots)
        parts = [slice(start, start + count) for start in range(0, len(slots), count)]
        self.groups = [PaddedGroup(starts[part], slots[part], device) for part in parts]
        self.position_ids = torch.cat([group.position_ids for group in self.groups])

    def ids(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The ids of all rows, (N,), with zeros up to the end of each slot."""
        ids = [*chain.from_iterable(pad_right(rows, self.slots))]
        return torch.tensor(ids, device=self._stops.device)

    def last(self, keep: int) -> Tensor:
        """Indices of the last `keep` tokens of each row, (B * keep,); no row is shorter."""
        return (self._stops[:, None] + torch.arange(-keep, 0, device=self._stops.device)).flatten()

    def attended(self, attend: Attend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of each row to itself: (1, H, N, D) each -> (1, N, H, D).

        attend: the attention of padded rows, three times (B, H, T, D) -> (B, T, H, D).
        """
        gathered = value.new_empty(len(self.position_ids), query.shape[1], value.shape[-1])
        packed = [each[0].transpose(0, 1).contiguous() for each in (query, key, value)]
        for group in self.groups:
            found = attend(*map(group.pad, packed))
            group.unpad(found, gathered[group.tokens])
        return gathered[None]


class PaddedGroup:
    """Some rows of a packed batch, whose slots begin at `starts`. tokens: the slice of the batch
    that they fill. Rows with slots of one size are not copied."""

    def __init__(self, starts: Sequence[int], slots: Sequence[int], device: torch.device) -> None:
        self.rows, self.is_even = len(slots), min(slots) == max(slots)
        self.width = max(slots)
        if not self.is_even:
            self.width = -(-self.width // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
        self.tokens = slice(starts[0], starts[-1] + slots[-1])
        columns = torch.arange(self.width, device=device).expand(self.rows, -1)
        sizes, first = (torch.tensor(x, device=device)[:, None] for x in (slots, starts))
        is_used = columns < sizes
        self.position_ids = columns[is_used]
        if not self.is_even:
            self._used = is_used.flatten().nonzero()[:, 0]
            self._sources = torch.where(is_used, first + columns, 0)
        self._sources_by_heads = dict[int, Tensor]()

    def pad(self, packed: Tensor) -> Tensor:
        """Packed (N, H, D) -> padded rows (B, H, T, D)."""
        heads, size = packed.shape[1:]
        if self.is_even:
            return packed[self.tokens].view(self.rows, self.width, heads, size).transpose(1, 2)
        padded = packed.view(-1, size).index_select(0, self._sources_of(heads))
        return padded.view(self.rows, heads, self.width, size)

    def unpad(self, padded: Tensor, into: Tensor) -> None:
        """Padded rows (B, T, H, D) -> `into`, this group's part (n, H, D) of the packed batch."""
        if self.is_even:
            into.copy_(padded.flatten(0, 1))
        else:
            torch.index_select(padded.flatten(0, 1), 0, self._used, out=into)

    def _sources_of(self, heads: int) -> Tensor:
        """The packed index, of tokens by heads, for each place of the padded rows (B * H * T,)."""
        if heads not in self._sources_by_heads:
            head = torch.arange(heads, device=self._sources.device)[:, None]
            self._sources_by_heads[heads] = (self._sources[:, None] * heads + head).flatten()
        return self._sources_by_heads[heads]


def slots_of(lengths: Sequence[int]) -> Sequence[int]:
    """The size of each row's slot: its length, or that of the longest row where padding costs
    less than copying."""
    longest = [max(lengths)] * len(lengths)
    return lengths if sum(longest) > MAX_PADDING_RATIO * sum(lengths) else longest
