"""Attention on CPU as plain matrix products, block by block.

               keys 0 .. stop      no token attends to a later one, so a block of queries needs
    queries    . . . .             only the keys up to its own last one; and as few rows at a
    a .. stop  . . . . .           time that their scores stay in the CPU's cache

Where torch's own attention is faster (`attention_choice`), that attends, under the name `PACKED`,
which knows packed rows as well. Registered with transformers under these two names; the private
attributes of transformers used here are listed in tests/inference/test_attention_contract.py.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from xl3m_core.inference.masks import additive_mask
from xl3m_core.inference.packing import PackedBatch

ATTENTIONS: Any = cast(Any, AttentionInterface)()
MASKS: Any = cast(Any, AttentionMaskInterface)()
NAME = "xl3m_blocked"
PACKED = "xl3m_packed"
"""torch's own attention, also of packed rows."""
SDPA = "sdpa"
"""The name transformers has for torch's own attention."""
BLOCK = 128  # queries; of 512 tokens, three eighths of all scores are never computed
MAX_UNMASKED_TOKENS = 4096  # of a row without a mask; longer rows use torch's own attention
MAX_SCORES = 1 << 20  # scores at a time: two megabytes in bfloat16
MIN_SUM, MAX_SUM = 1e-20, 1e34  # sums of weights; exponents of 8 bits hold 1e-38 to 3e38


Kernel = Callable[[Any, Tensor, Tensor, Tensor, Tensor | None, dict[str, Any]], Tensor]
"""Attention of padded rows: module, query, key, value, mask, other arguments -> (B, T, H, D)."""


def blocked_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed: PackedBatch | None = None,
    **named: Any,
) -> tuple[Tensor, Any]:
    """Causal attention of queries (B, H, T, D) to keys and values (B, h, S, D) -> (B, T, H, D).

    The queries are the last T of the S tokens. attention_mask (B, 1, T, S) is added to the scores;
    None masks later tokens only. Rows that are packed into one, (1, H, N, D) -> (1, N, H, D),
    must come with `PackedBatch.no_mask`, which also masks later tokens only; any other mask raises
    ValueError.

    Scores have the dtype of the values, as in transformers' eager attention; torch's own keeps them
    in float32. Anything but reading several tokens at once is left to torch's own.
    """
    return _attention(_gathered, module, query, key, value, attention_mask, packed, named), None


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed: PackedBatch | None = None,
    **named: Any,
) -> tuple[Tensor, Any]:
    """torch's own attention; arguments and result as in `blocked_attention`."""
    return _attention(_torchs, module, query, key, value, attention_mask, packed, named), None


def _attention(
    kernel: Kernel,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    packed: PackedBatch | None,
    named: dict[str, Any],
) -> Tensor:
    """The kernel's attention of padded rows, or of the rows of a packed batch."""
    if packed is None:
        return kernel(module, query, key, value, mask, named)
    if mask is None or mask.shape != packed.no_mask.shape:
        raise ValueError("rows cannot be packed: this layer masks more than later tokens")

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return kernel(module, query, key, value, None, named)

    return packed.attended(attend, query, key, value)


def _torchs(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    named: dict[str, Any],
) -> Tensor:
    """torch's own attention; shapes as in `_gathered`."""
    output: tuple[Tensor, Any] = ATTENTIONS[SDPA](module, query, key, value, mask, **named)
    return output[0]


def _gathered(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    named: dict[str, Any],
) -> Tensor:
    """Attention in blocks where that is supported, else torch's own.

    query: (B, H, T, D); key, value: (B, h, S, D); mask: (B, 1, T, S) or None -> (B, T, H, D).
    """
    if torch.is_grad_enabled() or not _is_supported(module, query, key, mask, named):
        return _torchs(module, query, key, value, mask, named)
    scaling = named.get("scaling") or query.shape[-1] ** -0.5
    return _attended(query * scaling, key, value, mask)


def _is_supported(
    module: Any, query: Tensor, key: Tensor, mask: Tensor | None, named: dict[str, Any]
) -> bool:
    """Whether a causal model reads several tokens at once, without dropout or a position bias; and
    if there is no mask, whether these are all tokens of their row, and not too many."""
    width, length = query.shape[2], key.shape[2]
    fits = width <= length if mask is not None else width == length <= MAX_UNMASKED_TOKENS
    return width > 1 and fits and _is_causal(module, named)


def _attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention in blocks, several rows at a time; shapes as in `_gathered`."""
    rows, heads, width, _ = query.shape
    gathered = value.new_empty(rows, width, heads, value.shape[-1])
    count = max(1, MAX_SCORES // (heads * min(BLOCK, width) * key.shape[2]))
    for part in (slice(start, start + count) for start in range(0, rows, count)):
        keys, values = _for_each_head(key[part], heads), _for_each_head(value[part], heads)
        _gather(query[part], keys, values, None if mask is None else mask[part], gathered[part])
    return gathered


def _gather(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, into: Tensor) -> None:
    """Attention of a few rows, block by block, written to `into` (B, T, H, D).

    query: (B, H, T, D); key, value: (B, H, S, D), as many heads as the queries have; mask:
    (B, 1, T, S) or None.
    """
    width, before = query.shape[2], key.shape[2] - query.shape[2]
    for start in range(0, width, BLOCK):
        block, visible = slice(start, start + BLOCK), slice(0, before + start + BLOCK)
        block_mask = None if mask is None else mask[:, :, block, visible]
        weights, total = _weights(query[:, :, block], key[:, :, visible], block_mask)
        into[:, block] = (weights @ value[:, :, visible]).div_(total).transpose(1, 2)


def _weights(query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | float]:
    """The weight of each value (B, H, T, S) before it is divided by the row's sum (B, H, T, 1).

    query: (B, H, T, D); key: (B, H, S, D); mask: (B, 1, T, S), or None where the last T keys are
    the queries' own and all keys before them are visible.

    The softmax, without subtracting each row's largest score first: half of the time, and exact
    unless a score exceeds what exponents hold. The sums show that; then the plain softmax is
    used. The small model's largest scores in a row are -5 to 74; the bounds here are -46 and 78.
    """
    own = slice(-query.shape[2], None)
    weights = _scores(query, key, mask).exp_()
    if mask is None:  # a sixth of the time of masking the scores before
        weights[..., own].tril_()
    total = weights.sum(-1, keepdim=True)
    if total.amin() > MIN_SUM and total.amax() < MAX_SUM:
        return weights, total
    scores = _scores(query, key, mask)
    if mask is None:
        scores[..., own] += _causal_mask(query.shape[2], query.dtype, query.device)
    return scores.softmax(-1), 1.0


def _scores(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """The score of each key for each query (B, H, T, S), with the mask added if there is one."""
    scores = query @ key.mT
    return scores if mask is None else scores.add_(mask)


@lru_cache(maxsize=BLOCK)
def _causal_mask(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Masks from each token of a block the later ones: (T, T), to be added."""
    return additive_mask(torch.ones(width, width, dtype=torch.bool, device=device).tril(), dtype)


def _for_each_head(shared: Tensor, heads: int) -> Tensor:
    """Keys or values (B, h, S, D) that several heads share, repeated: (B, heads, S, D)."""
    times = heads // shared.shape[1]
    return shared if times == 1 else shared.repeat_interleave(times, dim=1)


def _is_causal(module: Any, named: dict[str, Any]) -> bool:
    """Whether no token attends to a later one, and nothing but the mask changes the scores."""
    causal = named.get("is_causal") is not False and getattr(module, "is_causal", True)
    return bool(causal and not named.get("dropout") and named.get("position_bias") is None)


def mask(*args: Any, **named: Any) -> Tensor | None:
    """The mask (B, 1, T, S) of padding and later tokens, to be added, as transformers asks for it.

    None where nothing is padded, as with torch's own: for a long row it would be very large.
    """
    visible: Tensor | None = MASKS[SDPA](*args, **named)
    if visible is None:
        return None
    added = additive_mask(visible, named.get("dtype") or torch.float32)
    # A query without a visible key is padding, whose result is not used; its weights need a sum.
    return added.masked_fill_(~visible.any(-1, keepdim=True), 0)


AttentionInterface.register(NAME, blocked_attention)
AttentionMaskInterface.register(NAME, mask)
AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, MASKS[SDPA])
