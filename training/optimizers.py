"""The optimizers: Muon for the matrices within the layers, AdamW for all else.

Muon makes all directions of a matrix's step equally long. Of a whole attention matrix it takes the
heads that matter already and drowns the others, so each head is a matrix of its own here. It knows
Llamas, not what they learn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

HEADS = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1}
"""The dimension along which a matrix's heads lie side by side."""


def optimizers(model: Any, rate: float) -> list[Any]:
    """Muon by head and AdamW, of one learning rate: Muon's steps are scaled to AdamW's size."""
    inner = {name: p for name, p in model.model.layers.named_parameters() if p.ndim == 2}
    outer = [p for p in model.parameters() if all(p is not other for other in inner.values())]
    return [
        HeadMuon(inner, model.config.head_dim, rate),
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


class HeadMuon:
    """Muon on the heads of attention's matrices, and on other matrices whole.

    matrices: by name, (rows, columns) each. Steps and state are those of `torch.optim.Muon` on
    parts that share the matrices' memory.
    """

    def __init__(self, matrices: dict[str, Tensor], head: int, rate: float) -> None:
        self.matrices, self.head = matrices, head
        self.parts = [
            [Parameter(part) for part in self.split(name, matrix.detach())]
            for name, matrix in matrices.items()
        ]
        muon: Any = torch.optim.Muon
        flat = [part for parts in self.parts for part in parts]
        self.inner = muon(flat, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Where the learning rate is set."""
        groups: list[dict[str, Any]] = self.inner.param_groups
        return groups

    def split(self, name: str, matrix: Tensor) -> tuple[Tensor, ...]:
        """The matrix's heads, or the matrix."""
        along = HEADS.get(name.split(".")[-2])
        return (matrix,) if along is None else torch.split(matrix, self.head, along)

    def step(self) -> None:
        """One step, from the matrices' gradients."""
        for (name, matrix), parts in zip(self.matrices.items(), self.parts, strict=True):
            assert matrix.grad is not None
            for part, grad in zip(parts, self.split(name, matrix.grad), strict=True):
                part.grad = grad
        self.inner.step()

    def state_dict(self) -> dict[str, Any]:
        """Muon's state, by part."""
        state: dict[str, Any] = self.inner.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from such a state."""
        self.inner.load_state_dict(state)
