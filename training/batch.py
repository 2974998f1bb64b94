"""Rows of tokens, and batches of them: passages in one rectangle, questions in another behind it.

    pad pad start start start | end 1 end 1 pad | end 2 pad pad

Sizes are rounded up, since the libraries below make a program for every shape they meet. It knows
nothing of what the tokens say, or of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.attention import UNSEEN

PADDING = -1
START_STEP, END_STEP = 32, 8
"""What the lengths of starts and of ends are rounded up to."""


@dataclass(frozen=True)
class Row:
    """A passage's token ids, and of each token its kind and its question's number."""

    ids: list[int]
    kinds: list[int]
    turns: list[int]

    def add(self, ids: list[int], kind: int, turn: int) -> None:
        """Tokens of one kind and one question behind the others."""
        self.ids.extend(ids)
        self.kinds.extend([kind] * len(ids))
        self.turns.extend([turn] * len(ids))

    def only(self, turns: set[int]) -> Row:
        """The row without the other questions."""
        kept = [i for i, turn in enumerate(self.turns) if turn in turns]
        return Row(*([part[i] for i in kept] for part in (self.ids, self.kinds, self.turns)))

    def first(self, tokens: int) -> Row:
        """The row, cut off after so many tokens."""
        return Row(self.ids[:tokens], self.kinds[:tokens], self.turns[:tokens])

    def parts(self) -> list[Row]:
        """The start, and each of its questions."""
        return [self.only({turn}) for turn in sorted({0, *self.turns})]


@dataclass(frozen=True)
class Batch:
    """Token ids (B, T), and what each token is: 0 text, 1 answer, 2 guess, -1 not to be predicted.

    places: (B, T), positions, of each end as if it alone stood behind its start. unseen:
    (B, 1, 1, start), what to add to attention to hide padding. ends: how many, and how long.
    """

    ids: Tensor
    kinds: Tensor
    places: Tensor
    unseen: Tensor
    ends: tuple[int, int]

    @classmethod
    def of(cls, rows: list[Row], pad: int) -> Batch:
        """Starts padded on the left, ends on the right."""
        parts = [row.parts() for row in rows]
        count = max(map(len, parts)) - 1
        wide = _rounded(max(len(start.ids) for start, *_ in parts), START_STEP)
        longest = max((len(end.ids) for _, *ends in parts for end in ends), default=0)
        ends = (count, _rounded(longest, END_STEP))
        lines = [_line(start, behind, wide, ends, pad) for start, *behind in parts]
        ids, kinds = (torch.tensor([line[i] for line in lines]) for i in range(2))
        before = torch.tensor([[wide - len(start.ids)] for start, *_ in parts])
        places = torch.cat((torch.arange(wide), wide + torch.arange(ends[1]).repeat(count)))
        unseen = torch.where(torch.arange(wide) < before, UNSEEN, 0.0)[:, None, None]
        return cls(ids, kinds, (places - before).clamp(min=0), unseen, ends)

    def to(self, device: str) -> Batch:
        """The batch on a device."""
        ids, kinds, places, unseen = (
            each.to(device, non_blocking=True)
            for each in (self.ids, self.kinds, self.places, self.unseen)
        )
        return Batch(ids, kinds, places, unseen, self.ends)

    def inputs(self) -> dict[str, Any]:
        """What the model is given, with `training.attention`."""
        return {
            "input_ids": self.ids,
            "attention_mask": self.unseen,
            "position_ids": self.places,
            "ends": self.ends,
        }


def _rounded(length: int, step: int) -> int:
    return -(-length // step) * step


def _line(
    start: Row, behind: list[Row], wide: int, ends: tuple[int, int], pad: int
) -> tuple[list[int], list[int]]:
    """Ids and kinds of one row; the first token of a start or an end is predicted by nothing."""
    before, (count, length) = wide - len(start.ids), ends
    ids, kinds = [pad] * before + start.ids, [PADDING] * (before + 1) + start.kinds[1:]
    for end in behind:
        after = length - len(end.ids)
        ids += end.ids + [pad] * after
        kinds += [PADDING, *end.kinds[1:]] + [PADDING] * after
    left = (count - len(behind)) * length
    return ids + [pad] * left, kinds + [PADDING] * left
