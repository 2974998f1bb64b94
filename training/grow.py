"""A model twice as wide that computes the same: what a small one has learnt is not lost.

What is new begins with no effect, but not with no gradient: of every two matrices through
which a new dimension acts, one is zero and the other random. It knows Llamas only.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

LLAMA: Any = LlamaForCausalLM  # the library's own types do not describe it
SPREAD = 0.02
READERS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "lm_head")
"""They read new dimensions of the residual stream, which are zero at first."""
FEEDERS = ("q_proj", "v_proj", "gate_proj", "up_proj")
"""What they make of their own new dimensions meets zeros: in k, o and down."""


def grown(small: Any) -> Any:
    """The model with twice the width, the size of each head and the size of each MLP.

    Raises ValueError for one whose heads share keys.
    """
    if small.config.num_key_value_heads != small.config.num_attention_heads:
        raise ValueError("heads that share keys are not grown")
    config = small.config.__class__.from_dict(small.config.to_dict())
    for size in ("hidden_size", "intermediate_size", "head_dim"):
        setattr(config, size, 2 * getattr(config, size))
    config.rms_norm_eps /= 2  # as is what a norm averages
    config.dtype = torch.float32
    large, old = LLAMA(config), dict(small.named_parameters())
    with torch.no_grad():
        for name, weight in large.named_parameters():
            if weight.ndim == 1:  # a norm: half of what it averages is zero
                weight.copy_(torch.cat([old[name], old[name]]).float() / 2**0.5)
            else:
                weight.copy_(_placed(name.split(".")[-2], old[name].float(), weight, config))
    return large


def _placed(name: str, old: Tensor, weight: Tensor, config: Any) -> Tensor:
    """The old matrix within one of the new shape, and zero or random numbers around it."""
    rows, columns = torch.arange(old.shape[0]), torch.arange(old.shape[1])
    if name in ("q_proj", "k_proj"):
        rows = _turned(config.num_attention_heads, config.head_dim)
    elif name == "v_proj":
        rows = _halves(config.num_attention_heads, config.head_dim)
    elif name == "o_proj":
        columns = _halves(config.num_attention_heads, config.head_dim)
    if name == "q_proj":
        old = old * 2**0.5  # scores are divided by the root of a head's size
    new = torch.randn(weight.shape) * SPREAD if name in FEEDERS else torch.zeros(weight.shape)
    if name in READERS:
        new[rows] = torch.randn(len(rows), weight.shape[1]) * SPREAD
    new[rows[:, None], columns] = old
    return new


def _halves(heads: int, head: int) -> Tensor:
    """Where the dimensions of each head go: into the first half of the larger one."""
    return torch.cat([start + torch.arange(head // 2) for start in range(0, heads * head, head)])


def _turned(heads: int, head: int) -> Tensor:
    """The same where positions turn them: what was dimension i of half a head turns as fast as
    dimension 2i of half a head of twice the size."""
    half = torch.arange(0, head // 2, 2)
    starts = range(0, heads * head, head // 2)
    return torch.cat([start + half for start in starts])


def main() -> None:
    """Reads a model's folder, writes the larger model's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    grown(LLAMA.from_pretrained(args.model, dtype=torch.float32)).save_pretrained(args.out)
    AutoTokenizer.from_pretrained(args.model).save_pretrained(args.out)


if __name__ == "__main__":
    main()
