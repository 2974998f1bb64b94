"""What a large model costs on this machine's accelerator: Llama-2-7B's shape, random weights.

Speed does not depend on the weights. Rows have 512 tokens. Every figure is compared with the best
matrix product of the same device and dtype, or with another figure of the same run. Without an
accelerator nothing is measured, unless a smaller shape is given.
"""

import argparse
from typing import Any

import torch

from benchmarks.harness.hardware import SHAPES, peak_flops, random_llama
from benchmarks.speed.query import PROMPTS, SHORT_PROMPTS, first_token
from benchmarks.speed.questions import costs
from benchmarks.speed.scoring import ROWS, WINDOW, engine_of_full_rows, scored
from xl3m_core import Engine, LanguageModel, Method

TOKENS = 20_000_000
QUESTION_COUNTS = (1, 8, 32)
LLAMA_2_WINDOW = 4096
PREFIX_CACHE_BYTES = 8 << 30  # a prompt of that window takes 2 GiB of keys and values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--shape", choices=[*SHAPES], help="default: 7B, on an accelerator only")


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per figure."""
    there = torch.cuda.is_available()
    if not (there or args.shape):
        print("no accelerator here; --shape 100M tries this benchmark on the CPU")
        return []
    device, dtype = ("cuda", torch.bfloat16) if there else ("cpu", torch.float32)
    shape, tokenizer = args.shape or "7B", LanguageModel.load(device="cpu").tokenizer
    network = random_llama(shape, device, dtype)
    model = LanguageModel(network, tokenizer, WINDOW)
    rows = _scoring(model, shape, device, dtype) + _questions(model, shape, device)
    reader = LanguageModel(
        network, tokenizer, LLAMA_2_WINDOW, prefix_cache_bytes=PREFIX_CACHE_BYTES
    )
    query = Engine(reader, Method.fit(LLAMA_2_WINDOW))
    prompts = SHORT_PROMPTS if args.short else PROMPTS
    return rows + [
        _row(f"{each['what']}, ms", each["median_ms"], each["ratio"], each["of"])
        for each in first_token(shape, query, prompts, device)
    ]


def _scoring(
    model: LanguageModel, shape: str, device: str, dtype: torch.dtype
) -> list[dict[str, Any]]:
    figures = scored(model, ROWS[shape], peak_flops(device, dtype), device)
    speed = figures["tokens_per_s"]  # the question's tokens in each row counted as well
    return [
        _row("scoring, GFLOP/s", figures["gflop_per_s"], figures["of_peak"], "peak"),
        _row("scoring, tokens/s", speed, figures["of_bare_forward"], "bare forward"),
        _row("20M tokens of rows, hours", TOKENS / speed / 3600, 1.0, "this speed"),
    ]


def _questions(model: LanguageModel, shape: str, device: str) -> list[dict[str, Any]]:
    """The same segments under more questions."""
    cost = costs(engine_of_full_rows(model), ROWS[shape], QUESTION_COUNTS, seed=0, device=device)
    return [
        _row(f"{n} questions, s", cost[n].seconds, cost[n].of_one, "one")
        for n in QUESTION_COUNTS[1:]
    ]


def _row(what: str, figure: float, ratio: float, baseline: str) -> dict[str, Any]:
    return {"what": what, "figure": figure, "ratio": ratio, "of": baseline}
