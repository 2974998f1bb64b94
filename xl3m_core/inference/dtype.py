"""The type of a model's weights: measured, because what a CPU says of itself does not decide it.

A CPU with bfloat16 instructions may multiply half as fast in bfloat16 as in float32, or five times
as fast. So the product that a forward spends most of its time on is timed in both.
"""

import logging
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

logger = logging.getLogger("xl3m")

TOKENS = 256
RUNS = 5
MARGIN = 1.25
"""How much faster bfloat16 must be: a float32 score depends less on the rest of its batch, and what
is no matrix product gains nothing."""
SIZES = {"hidden_size": 512, "intermediate_size": 2048}
"""Columns and rows of the weights where a config does not say."""
MAX_SIZE = 1024
"""Larger weights are as fast as these, and would take long to time."""


def best_dtype(device: str, config: Any = None) -> torch.dtype:
    """The faster type for a model of this config; the log says which and why.

    On a CPU float32 or bfloat16, by measurement; on a GPU bfloat16 if it has it; else float32.
    """
    if device.startswith("cuda"):
        return torch.bfloat16 if _has_bfloat16() else torch.float32
    if device != "cpu":
        return torch.float32
    return _measured(*sizes(config))


def sizes(config: Any) -> tuple[int, int]:
    """Columns and rows of a layer's largest weights, as far as they matter for speed."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = ((getattr(text, name, None), default) for name, default in SIZES.items())
    columns, rows = (n if isinstance(n, int) and n > 0 else default for n, default in found)
    return min(columns, MAX_SIZE), min(rows, MAX_SIZE)


@lru_cache
def _measured(columns: int, rows: int) -> torch.dtype:
    """The faster type by the products of one shape, once a process."""
    in_float32, in_bfloat16 = product_seconds(columns, rows)
    dtype = faster(in_float32, in_bfloat16)
    logger.info(
        "dtype %s: a product of %d x %d x %d takes %.2f ms in float32 and %.2f ms in bfloat16, "
        "which is chosen if it is %.2f times as fast",
        str(dtype).removeprefix("torch."), TOKENS, columns, rows,
        1e3 * in_float32, 1e3 * in_bfloat16, MARGIN,
    )  # fmt: skip
    return dtype


def faster(in_float32: float, in_bfloat16: float) -> torch.dtype:
    """bfloat16 if it takes so much less time that it pays, else float32."""
    return torch.bfloat16 if in_bfloat16 * MARGIN < in_float32 else torch.float32


def product_seconds(columns: int, rows: int) -> tuple[float, float]:
    """The shortest time of a product in float32, and in bfloat16. Their runs alternate, so that
    other work on the machine slows both."""
    calls = [_product(columns, rows, dtype) for dtype in (torch.float32, torch.bfloat16)]
    for call in calls:
        call()  # the first one prepares
    runs = [[_seconds(call) for call in calls] for _ in range(RUNS)]
    in_float32, in_bfloat16 = map(min, zip(*runs, strict=True))
    return in_float32, in_bfloat16


@torch.inference_mode()
def _product(columns: int, rows: int, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    tokens = torch.ones(TOKENS, columns, dtype=dtype)
    weights = torch.ones(rows, columns, dtype=dtype)
    return lambda: torch.nn.functional.linear(tokens, weights)


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _has_bfloat16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
