"""The optimizers: Muon for the matrices inside the layers, AdamW for everything else.

Muon gives all directions of a matrix's update the same length. On a whole attention matrix the
strongest heads would dominate, so each head is a matrix of its own here; heads of one shape are
processed together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

HEADS = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1}
"""The dimension along which a matrix's heads are concatenated."""
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Of Newton and Schulz's iteration, chosen for speed: singular values end near one, which is enough
(Keller Jordan, 2024, github.com/KellerJordan/Muon)."""
ROUNDS = 5


def optimizers(model: Any, rate: float) -> list[torch.optim.Optimizer]:
    """Muon by head and AdamW, with one learning rate: Muon's steps are scaled to AdamW's size."""
    inner = {name: p for name, p in model.model.layers.named_parameters() if p.ndim == 2}
    outer = [p for p in model.parameters() if all(p is not other for other in inner.values())]
    return [
        HeadMuon(inner, model.config.head_dim, rate),
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


class HeadMuon(torch.optim.Optimizer):
    """Muon on the heads of attention's matrices, and on other matrices whole.

    matrices: by name, (rows, columns) each. The same steps as `torch.optim.Muon` takes with
    adjust_lr_fn="match_rms_adamw" and weight_decay=decay, but for hundreds of small matrices at
    once: one by one they keep a GPU waiting for Python.
    """

    def __init__(
        self,
        matrices: dict[str, Tensor],
        head: int,
        rate: float,
        momentum: float = 0.95,
        decay: float = 0.01,
    ) -> None:
        self.along = [HEADS.get(name.split(".")[-2]) for name in matrices]
        self.head, self.momentum, self.decay = head, momentum, decay
        super().__init__([*matrices.values()], {"lr": rate})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step, from the matrices' gradients; no closure is called."""
        (group,) = self.param_groups
        alike = dict[torch.Size, list[tuple[Tensor, Tensor]]]()
        for matrix, along in zip(group["params"], self.along, strict=True):
            heads, steps = (self._heads(each, along) for each in (matrix, self._nesterov(matrix)))
            alike.setdefault(heads.shape[1:], []).append((heads, steps))
        for shape, pairs in alike.items():
            rate = group["lr"] * 0.2 * max(shape) ** 0.5
            straight = orthogonal(torch.cat([step for _, step in pairs]))
            sizes = [len(heads) for heads, _ in pairs]
            for (heads, _), step in zip(pairs, torch.split(straight, sizes), strict=True):
                heads.mul_(1 - group["lr"] * self.decay).add_(step, alpha=-rate)

    def _nesterov(self, matrix: Tensor) -> Tensor:
        """The gradient with Nesterov's momentum."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["average"] = torch.zeros_like(matrix)
        state["average"].lerp_(matrix.grad, 1 - self.momentum)
        average: Tensor = state["average"]
        return matrix.grad.lerp(average, self.momentum)

    def _heads(self, matrix: Tensor, along: int | None) -> Tensor:
        """The matrix's heads, or the matrix, as a view (N, rows, columns)."""
        if along is None:
            return matrix[None]
        rows, columns = matrix.shape
        if along == 0:
            return matrix.view(-1, self.head, columns)
        return matrix.view(rows, -1, self.head).transpose(0, 1)


def orthogonal(matrices: Tensor) -> Tensor:
    """The matrices (N, rows, columns), with all their singular values near one."""
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    found: Tensor = x.mT if tall else x
    return found.type_as(matrices)
