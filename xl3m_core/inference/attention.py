"""Attention on a processor as plain matrix products, block by block.

               keys 0 .. stop      no token sees what follows it, so a block of queries is held
    queries    . . . .             against the keys up to its own last one alone; so few rows at
    a .. stop  . . . . .           a time that their scores stay in the processor's cache

torch's own attention for processors is two to three times slower in bfloat16 (docs/speed.md). On a
GPU it is torch's own, but not cuDNN's. Knows how transformers calls an attention, and how causal
models differ; not what they read.
"""

from functools import lru_cache, partial
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from xl3m_core.inference.masks import additive_mask
from xl3m_core.inference.packing import PackedBatch
from xl3m_core.measure import logits_close

ATTENTIONS: Any = cast(Any, AttentionInterface)()
MASKS: Any = cast(Any, AttentionMaskInterface)()
NAME = "xl3m_products"
SDPA = "sdpa"
"""What transformers calls torch's own attention."""
LAYER_TYPES = {"full_attention", "sliding_attention"}
BLOCK = 128  # queries; of 512 tokens, three eighths of all scores are never computed
MAX_UNMASKED_TOKENS = 4096  # tokens of rows without a mask; longer ones are left to torch's own
MAX_SCORES = 1 << 20  # scores at a time: two megabytes of bfloat16
MIN_SUM, MAX_SUM = 1e-20, 1e34  # sums of weights; exponents of 8 bits hold 1e-38 to 3e38


def blocked_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed: PackedBatch | None = None,
    **named: Any,
) -> tuple[Tensor, Any]:
    """What each token gathers, (B, T, H, D), from queries (B, H, T, D) and keys and values
    (B, h, S, D), of which the queries' own are the last T. attention_mask: (B, 1, T, S), is added;
    None hides what follows alone. Of rows that are packed into one, (1, H, N, D), the same is
    hidden, and that in one again, (1, N, H, D), is returned; the mask must be `Packed.no_mask`.

    Scores are in the values' dtype, as in transformers' eager attention; torch's keeps them in
    float32. What is no reading of several tokens at once is left to torch's.
    """
    if packed is not None:
        if attention_mask is None or attention_mask.shape != packed.no_mask.shape:
            raise ValueError("this layer masks more than what follows, so rows can't be packed")
        grid = partial(_gathered, module, mask=None, named=named)
        return packed.attended(grid, query, key, value), None
    return _gathered(module, query, key, value, attention_mask, named), None


def _gathered(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    named: dict[str, Any],
) -> Tensor:
    """By products, or by torch's own."""
    if torch.is_grad_enabled() or not _usual(module, query, key, mask, named):
        found: tuple[Tensor, Any] = ATTENTIONS[SDPA](module, query, key, value, mask, **named)
        return found[0]
    scaling = named.get("scaling") or query.shape[-1] ** -0.5
    return _attended(query * scaling, key, value, mask)


def _usual(
    module: Any, query: Tensor, key: Tensor, mask: Tensor | None, named: dict[str, Any]
) -> bool:
    """Whether several tokens are read at once by a causal model, and nothing is done else; without
    a mask, all that they see, which are not too many."""
    width, seen = query.shape[2], key.shape[2]
    fits = width <= seen if mask is not None else width == seen <= MAX_UNMASKED_TOKENS
    return width > 1 and fits and _causal(module, named)


def _attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """By products, so many rows at a time: (B, T, H, D)."""
    rows, heads, width, _ = query.shape
    gathered = value.new_empty(rows, width, heads, value.shape[-1])
    together = max(1, MAX_SCORES // (heads * min(BLOCK, width) * key.shape[2]))
    for part in (slice(at, at + together) for at in range(0, rows, together)):
        keys, values = _each_head(key[part], heads), _each_head(value[part], heads)
        _gather(query[part], keys, values, None if mask is None else mask[part], gathered[part])
    return gathered


def _gather(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, into: Tensor) -> None:
    """The same of a few rows, whose keys have as many heads as their queries."""
    width, before = query.shape[2], key.shape[2] - query.shape[2]
    for start in range(0, width, BLOCK):
        block, seen = slice(start, start + BLOCK), slice(0, before + start + BLOCK)
        hidden = None if mask is None else mask[:, :, block, seen]
        weights, total = _weights(query[:, :, block], key[:, :, seen], hidden)
        into[:, block] = (weights @ value[:, :, seen]).div_(total).transpose(1, 2)


def _weights(query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | float]:
    """How much of each value is taken, (B, H, T, S), and what that sums up to, (B, H, T, 1), by
    queries (B, H, T, D) and keys (B, H, S, D), and a mask as in `products`. Without one the
    queries' own keys are the last, and all before these are seen.

    As softmax does, but without taking each row's largest score off the others first: in half of
    the time, and as exact unless scores are beyond what exponents hold, which the sums tell; then
    both are done. The largest in a row of the small model's were seen to be -5 to 74; these bounds
    are -46 and 78.
    """
    own = slice(-query.shape[2], None)
    weights = _scores(query, key, mask).exp_()
    if mask is None:  # in a sixth of the time that it takes to hide what follows before
        weights[..., own].tril_()
    total = weights.sum(-1, keepdim=True)
    if total.amin() > MIN_SUM and total.amax() < MAX_SUM:
        return weights, total
    scores = _scores(query, key, mask)
    if mask is None:
        scores[..., own] += _triangle(query.shape[2], query.dtype, query.device)
    return scores.softmax(-1), 1.0


def _scores(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """How well each key fits each query, (B, H, T, S), with the mask's sum if there is one."""
    scores = query @ key.mT
    return scores if mask is None else scores.add_(mask)


@lru_cache(maxsize=BLOCK)
def _triangle(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What hides from each token of a block those of it that follow: (T, T)."""
    return additive_mask(torch.ones(width, width, dtype=torch.bool, device=device).tril(), dtype)


def _each_head(shared: Tensor, heads: int) -> Tensor:
    """Keys or values that several heads share, for each of them."""
    times = heads // shared.shape[1]
    return shared if times == 1 else shared.repeat_interleave(times, dim=1)


def _causal(module: Any, named: dict[str, Any]) -> bool:
    """Whether nobody sees what follows, and nothing is added that is not in the mask."""
    causal = named.get("is_causal") is not False and getattr(module, "is_causal", True)
    return bool(causal and not named.get("dropout") and named.get("position_bias") is None)


def mask(*args: Any, **named: Any) -> Tensor | None:
    """What to add to hide padding and what follows, as transformers asks for it; None where
    nothing is padded, as torch's own has it: for a long row it would be very large."""
    seen: Tensor | None = MASKS[SDPA](*args, **named)
    if seen is None:
        return None
    hidden = additive_mask(seen, named.get("dtype") or torch.float32)
    # What sees nothing is padding that nobody looks at, but its weights must have a sum.
    return hidden.masked_fill_(~seen.any(-1, keepdim=True), 0)


def disable_cudnn_attention(model: Any) -> None:
    """On a GPU let torch attend without cuDNN, in all of this process: that makes a plan for each
    shape it has not met, and no two batches or prompts are alike."""
    if model.device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


@torch.inference_mode()
def enable_blocked_attention(model: Any) -> None:
    """Let the model attend so where it is faster, if it lets one choose and its logits stay the
    same: asked of the model, not believed, with more tokens than a block has."""
    if not _worth_it(model):
        return
    ids = torch.arange(BLOCK + 8)[None] % 8 + 1
    try:
        before = model(input_ids=ids, use_cache=False).logits
        model.set_attn_implementation(NAME)
        same = logits_close(before, model(input_ids=ids, use_cache=False).logits)
    except Exception:  # whatever a foreign model raises
        same = False
    if not same:
        model.set_attn_implementation(SDPA)


def uses_blocked_attention(model: Any) -> bool:
    """Whether the model attends so."""
    return isinstance(model, PreTrainedModel) and model.config._attn_implementation == NAME


def known_layers(config: Any) -> bool:
    """Whether the mask alone says what each layer sees, as far as the config tells."""
    return set(getattr(config, "layer_types", None) or LAYER_TYPES) <= LAYER_TYPES


def _worth_it(model: Any) -> bool:
    """On a processor, in bfloat16, in place of torch's own attention; some models choose by its
    name which tokens they look at (`index_topk`), or see less than all."""
    if not isinstance(model, PreTrainedModel) or model.config._attn_implementation != SDPA:
        return False
    config = model.config.get_text_config()
    fast = model.device.type == "cpu" and model.dtype == torch.bfloat16
    plain = known_layers(config) and not hasattr(config, "index_topk")
    return fast and plain and bool(model._can_set_attn_implementation())


AttentionInterface.register(NAME, blocked_attention)
AttentionMaskInterface.register(NAME, mask)
