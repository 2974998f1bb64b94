"""Which attention a model runs on: blocked matrix products or torch's own, by measurement.

On one CPU blocked attention takes half as long as torch's, on another a little longer. Both know
packed rows, and neither is used on a GPU, where torch's own attends, without cuDNN.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from xl3m_core.inference.attention import ATTENTIONS, BLOCK, NAME, PACKED, SDPA
from xl3m_core.inference.capabilities import Probe

LAYER_TYPES = {"full_attention", "sliding_attention", "chunked_attention"}
WINDOWS = ("sliding_window", "attention_chunk_size")
"""What configs call the number of tokens that a layer of the last two kinds sees."""
ROWS, TOKENS, RUNS = 2, 256, 5
"""What is timed: rows of that many tokens, so often."""
MARGIN = 1.1
"""How much faster blocked attention must be: torch's keeps its scores in float32."""
BLOCKED_DTYPES = (torch.float32, torch.bfloat16)
"""Those whose exponents of 8 bits the bounds in `attention` are made for."""


def disable_cudnn_attention(model: Any) -> None:
    """On a GPU, keep torch in this process from cuDNN's attention: cuDNN prepares a plan for each
    new shape, and hardly two batches or prompts have the same."""
    if model.device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def choose_attention(model: Any, probe: Probe) -> str:
    """Switch the model to the faster attention that leaves its logits the same, and say which it is
    and why. The logits are compared by running the model both ways, on more tokens than one block
    has."""
    if knows_packed_rows(model):  # chosen before
        model.set_attn_implementation(SDPA)
    if reason := _why_not(model):
        return f"torch's attention ({reason})"
    name, said = _faster(model)
    if name == NAME and not _keeps_logits(model, NAME, probe, BLOCK + 8):
        name, said = PACKED, "torch's attention (blocked attention changes the logits)"
    if name == PACKED and not _keeps_logits(model, PACKED, probe, 8):
        said = "torch's attention (the model takes no other)"
    return said


def knows_packed_rows(model: Any) -> bool:
    """Whether the model uses an attention that can tell packed rows apart."""
    is_known = isinstance(model, PreTrainedModel)
    return is_known and model.config._attn_implementation in (NAME, PACKED)


def exact_tokens(config: Any, window: int) -> int:
    """Tokens of the longest row, at most `window`, whose tokens all see all those before them in
    every layer, as far as the config tells; 0 if layers are of another kind."""
    if not set(getattr(config, "layer_types", None) or LAYER_TYPES) <= LAYER_TYPES:
        return 0
    return min(window, *(getattr(config, name, None) or window for name in WINDOWS))


def _why_not(model: Any) -> str:
    """Why the model cannot be switched to another attention; empty if it can. Models with
    `index_topk` choose by the attention's name which tokens they attend to."""
    if not isinstance(model, PreTrainedModel):
        return "not a model of transformers"
    if model.device.type != "cpu":
        return "on a GPU"
    config = model.config.get_text_config()
    if model.config._attn_implementation != SDPA or not model._can_set_attn_implementation():
        return "the model takes no other"
    if not exact_tokens(config, BLOCK) or hasattr(config, "index_topk"):
        return "not all layers are plain attention"
    return ""


def _faster(model: Any) -> tuple[str, str]:
    """The name of the faster attention for this model's heads and dtype, and what to say of it."""
    config, dtype = model.config.get_text_config(), model.dtype
    if dtype not in BLOCKED_DTYPES:
        return PACKED, "torch's attention (no other in this dtype)"
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    blocked, torchs = attention_seconds(heads, shared, size, dtype)
    ratio = f"blocked attention takes {blocked / torchs:.2f} of its time"
    if blocked * MARGIN < torchs:
        return NAME, f"blocked attention (torch's takes {torchs / blocked:.2f} of its time)"
    return PACKED, f"torch's attention ({ratio})"


@lru_cache
@torch.inference_mode()
def attention_seconds(
    heads: int, shared: int, size: int, dtype: torch.dtype
) -> tuple[float, float]:
    """The shortest time of blocked attention, and of torch's own, for heads of this size of which
    `shared` have keys and values of their own. Their runs alternate, so that other work on the
    machine slows both."""
    query = torch.ones(ROWS, heads, TOKENS, size, dtype=dtype)
    key = torch.ones(ROWS, shared, TOKENS, size, dtype=dtype)
    module = SimpleNamespace(is_causal=True, training=False, num_key_value_groups=heads // shared)
    runs = [
        [_seconds(ATTENTIONS[name], module, query, key, key, None) for name in (NAME, PACKED)]
        for _ in range(RUNS)
    ]
    blocked, torchs = map(min, zip(*runs, strict=True))
    return blocked, torchs


def _seconds(call: Callable[..., Any], *args: Any) -> float:
    started = time.perf_counter()
    call(*args, scaling=args[1].shape[-1] ** -0.5)
    return time.perf_counter() - started


@torch.inference_mode()
def _keeps_logits(model: Any, name: str, probe: Probe, tokens: int) -> bool:
    """Switch the model to the attention of that name, or back if its logits are not the same."""
    ids: Tensor = torch.tensor([probe.row(range(tokens))])
    try:
        before = model(input_ids=ids, use_cache=False).logits
        model.set_attn_implementation(name)
        is_same = probe.is_close(before, model(input_ids=ids, use_cache=False).logits)
    except Exception:  # a foreign model may raise anything
        is_same = False
    if not is_same:
        model.set_attn_implementation(SDPA)
    return is_same
