"""Rows of tokens, and batches of them: prefixes in one rectangle, suffixes in another behind it.

    pad pad prefix prefix prefix | suffix 1 suffix 1 pad | suffix 2 pad pad

Sizes are rounded up, since the libraries below compile a kernel for every shape they meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.attention import MASKED

PADDING = -1
PREFIX_MULTIPLE, SUFFIX_MULTIPLE = 32, 8
"""Lengths of prefixes and of suffixes are rounded up to multiples of these."""


@dataclass(frozen=True)
class Row:
    """A passage's token ids, and each token's kind and the number of its question."""

    ids: list[int]
    kinds: list[int]
    turns: list[int]

    def add(self, ids: list[int], kind: int, turn: int) -> None:
        """Append tokens of one kind and one question."""
        self.ids.extend(ids)
        self.kinds.extend([kind] * len(ids))
        self.turns.extend([turn] * len(ids))

    def only(self, turns: set[int]) -> Row:
        """The row without the other questions."""
        kept = [i for i, turn in enumerate(self.turns) if turn in turns]
        return Row(*([part[i] for i in kept] for part in (self.ids, self.kinds, self.turns)))

    def first(self, tokens: int) -> Row:
        """The row, truncated to that many tokens."""
        return Row(self.ids[:tokens], self.kinds[:tokens], self.turns[:tokens])

    def parts(self) -> list[Row]:
        """The prefix, and each of its questions."""
        return [self.only({turn}) for turn in sorted({0, *self.turns})]


@dataclass(frozen=True)
class Batch:
    """Token ids (B, T), and each token's kind: 0 text, 1 answer, 2 guess, -1 not predicted.

    position_ids: (B, T); each suffix has the positions it would have alone behind its prefix.
    padding_mask: (B, 1, 1, prefix), added to the attention scores to hide padding. suffixes: how
    many, and how long each.
    """

    ids: Tensor
    kinds: Tensor
    position_ids: Tensor
    padding_mask: Tensor
    suffixes: tuple[int, int]

    @classmethod
    def of(cls, rows: list[Row], pad: int) -> Batch:
        """Prefixes padded on the left, suffixes on the right."""
        parts = [row.parts() for row in rows]
        count = max(map(len, parts)) - 1
        width = _rounded(max(len(prefix.ids) for prefix, *_ in parts), PREFIX_MULTIPLE)
        longest = max((len(row.ids) for _, *behind in parts for row in behind), default=0)
        suffixes = (count, _rounded(longest, SUFFIX_MULTIPLE))
        lines = [_line(prefix, behind, width, suffixes, pad) for prefix, *behind in parts]
        ids, kinds = (torch.tensor([line[i] for line in lines]) for i in range(2))
        padding = torch.tensor([[width - len(prefix.ids)] for prefix, *_ in parts])
        columns = torch.cat((torch.arange(width), width + torch.arange(suffixes[1]).repeat(count)))
        mask = torch.where(torch.arange(width) < padding, MASKED, 0.0)[:, None, None]
        return cls(ids, kinds, (columns - padding).clamp(min=0), mask, suffixes)

    def to(self, device: str) -> Batch:
        """The batch on a device."""
        ids, kinds, position_ids, padding_mask = (
            each.to(device, non_blocking=True)
            for each in (self.ids, self.kinds, self.position_ids, self.padding_mask)
        )
        return Batch(ids, kinds, position_ids, padding_mask, self.suffixes)

    def inputs(self) -> dict[str, Any]:
        """The model's keyword arguments, for `training.attention`."""
        return {
            "input_ids": self.ids,
            "attention_mask": self.padding_mask,
            "position_ids": self.position_ids,
            "suffixes": self.suffixes,
        }


def _rounded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _line(
    prefix: Row, behind: list[Row], width: int, suffixes: tuple[int, int], pad: int
) -> tuple[list[int], list[int]]:
    """Ids and kinds of one row. The first token of a prefix or a suffix is not predicted."""
    left, (count, length) = width - len(prefix.ids), suffixes
    ids, kinds = [pad] * left + prefix.ids, [PADDING] * (left + 1) + prefix.kinds[1:]
    for row in behind:
        right = length - len(row.ids)
        ids += row.ids + [pad] * right
        kinds += [PADDING, *row.kinds[1:]] + [PADDING] * right
    missing = (count - len(behind)) * length
    return ids + [pad] * missing, kinds + [PADDING] * missing
