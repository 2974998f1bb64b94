"""A model with more heads and one more layer that computes the same: nothing learnt is lost.

What is new begins with no effect, but not with no gradient: what it writes with is zero, what it
reads with is random, and about as large as what has been learnt. With much smaller numbers the new
part was never used: its gradient vanished beside that of the old. It knows Llamas only.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

LLAMA: Any = LlamaForCausalLM  # the library's own types do not describe it
SPREAD = 0.08
"""Standard deviation of new numbers; the learnt matrices' are 0.1 to 0.25."""
WRITERS = ("o_proj", "down_proj")


def grown(small: Any, heads: int, at: int) -> Any:
    """The model with so many more heads in each layer, and a new layer before layer `at`.

    Raises ValueError for one whose heads share keys.
    """
    config = small.config.__class__.from_dict(small.config.to_dict())
    if config.num_key_value_heads != config.num_attention_heads:
        raise ValueError("heads that share keys are not grown")
    config.num_attention_heads += heads
    config.num_key_value_heads += heads
    config.num_hidden_layers += 1
    config.dtype = torch.float32
    large, old = LLAMA(config), dict(small.named_parameters())
    with torch.no_grad():
        for name, weight in large.named_parameters():
            weight.copy_(_around(old.get(_before(name, at)), name.split(".")[-2], weight))
    return large


def _before(name: str, at: int) -> str:
    """What a parameter was called before there was the new layer, whose own had no name."""
    parts = name.split(".")
    if parts[:2] != ["model", "layers"]:
        return name
    layer = int(parts[2])
    return "" if layer == at else ".".join([*parts[:2], str(layer - (layer > at)), *parts[3:]])


def _around(old: Tensor | None, matrix: str, like: Tensor) -> Tensor:
    """The old numbers as the first of those of the new shape; ones where a norm is new."""
    if like.ndim == 1:
        return torch.ones_like(like) if old is None else old.float()
    new = torch.zeros_like(like) if matrix in WRITERS else torch.randn(like.shape) * SPREAD
    if old is not None:
        new[: old.shape[0], : old.shape[1]] = old
    return new


def main() -> None:
    """Reads a model's folder, writes the larger model's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", type=int, default=4, help="new heads in each layer")
    parser.add_argument("--at", type=int, default=1, help="the new layer's place, from 0")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    small = LLAMA.from_pretrained(args.model, dtype=torch.float32)
    grown(small, args.heads, args.at).save_pretrained(args.out)
    AutoTokenizer.from_pretrained(args.model).save_pretrained(args.out)


if __name__ == "__main__":
    main()
