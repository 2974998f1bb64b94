"""The peak speed of this machine, and the arithmetic a model needs: their ratio is utilization.

A peak is the best of a few large matrix products in the model's own dtype, measured in the same
run as the figure it is compared with. The FLOP count is for Llama's layer shapes.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SIZES, LARGE = (1024, 2048, 4096), 8192
TRIES = 3

NAMES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SHAPES = {
    "100M": (768, 2048, 12, 12),
    "1B": (2048, 5632, 22, 32),
    "7B": (4096, 11008, 32, 32),
}
WORDS = 32_000


def random_llama(shape: str, device: str, dtype: torch.dtype) -> Any:
    """A Llama of that shape with random weights: its speed does not depend on them."""
    make: Any = LlamaConfig
    sizes = dict(zip(NAMES, SHAPES[shape], strict=True))
    config = make(**sizes, vocab_size=WORDS, max_position_embeddings=4096)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            build: Any = LlamaForCausalLM
            return build(config).eval()
    finally:
        torch.set_default_dtype(before)


def peak_flops(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of a few products of square matrices; only a GPU needs large ones."""
    sizes = SIZES if device == "cpu" else (*SIZES, LARGE)
    return max(_product_flops(size, device, dtype) for size in sizes)


def _product_flops(size: int, device: str, dtype: torch.dtype) -> float:
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(TRIES))


def seconds(call: Callable[[], Any], device: str = "cpu") -> float:
    """Seconds the call takes, until the device has finished its work."""
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def forward_flops(model: Any, lengths: Sequence[int], keep: int) -> float:
    """FLOPs of a forward pass over rows of these lengths, with `keep` logits each.

    Two per weight of a linear layer and token, plus those of causal attention: the PaLM paper's
    count (arXiv 2204.02311, appendix B) for the forward pass, but without masked positions. Padding
    does not count.
    """
    inner = sum(p.numel() for p in model.model.layers.parameters() if p.ndim == 2)
    config = model.config
    heads = config.num_attention_heads * config.head_dim * config.num_hidden_layers
    attention = sum(2 * heads * length * (length + 1) for length in lengths)
    head = config.hidden_size * config.vocab_size * keep * len(lengths)
    return float(2 * (inner * sum(lengths) + head) + attention)
