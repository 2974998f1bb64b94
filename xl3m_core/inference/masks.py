"""What tokens of a row see when several ends stand side by side behind one start.

        turns  0  0  0  1  1  2  2     an end sees the start and itself, and has the places
        place  0  1  2  3  4  3  4     right behind the start, as if it were alone

Knows tensors; not what the start and the ends say.
"""

import torch
from torch import Tensor


def position_ids(mask: Tensor) -> Tensor:
    """Position ids (B, W) of rows padded on the left: the first token seen is at 0."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def additive_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to attention so that what is not seen has no weight; of `seen`'s shape."""
    nothing = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return nothing.masked_fill_(~seen, torch.finfo(dtype).min)


def shared_prefix_mask(turns: Tensor, last: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What to add to the attention of the last tokens (B, 1, last, T), and their position ids
    (B, last).

    turns: (B, T), 0 for a token of the start, n for one of the nth end, -1 for padding, which
    nobody sees.
    """
    keys, queries = turns[:, None, :], turns[:, -last:, None]
    seen = ((keys == 0) | ((keys == queries) & (keys > 0))).tril(turns.shape[1] - last)
    return additive_mask(seen, dtype)[:, None], (seen.sum(-1) - 1).clamp(min=0)
