"""Logits in float32 from a network in a shorter type.

A logit of 20 to 40 in bfloat16 is a multiple of 1/8 or 1/4. Rounded so, the entropies of
SmolLM2-135M change with the batch by up to 10 %, with this by up to 4 %. The layer's inputs and
weights stay as they are.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

TOKENS_AT_A_TIME = 2048
"""Rows of the weights that are converted together: they stay in the CPU's cache."""


def use_float32_logits(model: Any) -> bool:
    """On a CPU, compute the logits of a model in a shorter type in float32; whether that is so.

    Left as it is: a last layer that is no plain matrix product.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if type(head) is not torch.nn.Linear or head.weight.device.type != "cpu":
        return False
    if head.weight.dtype not in (torch.bfloat16, torch.float16):
        return False
    head.forward = partial(float32_linear, head)  # type: ignore[method-assign]
    return True


def float32_linear(layer: torch.nn.Linear, inputs: Tensor) -> Tensor:
    """The layer's output (..., V) in float32, its weights (V, D) converted part by part."""
    inputs, bias = inputs.float(), layer.bias
    outputs = inputs.new_empty(*inputs.shape[:-1], len(layer.weight))
    for start in range(0, len(layer.weight), TOKENS_AT_A_TIME):
        part = slice(start, start + TOKENS_AT_A_TIME)
        part_bias = None if bias is None else bias[part].float()
        outputs[..., part] = linear(inputs, layer.weight[part].float(), part_bias)
    return outputs
