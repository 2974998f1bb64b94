"""How near `Engine.score` comes to the hardware, and to the bare forward on the same rows.

Rounds of both are interleaved; the figure is the median of their ratios. The bare forward reads the
engine's batches on as many threads as the engine, so that what batching and threads gain is in
both. `of_peak`: FLOP/s of the model's own arithmetic over the best matrix product of this machine
in the same dtype. Shapes other than the model's have random weights.
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.harness.hardware import forward_flops, peak_flops, random_llama
from benchmarks.harness.timing import Ratio, interleaved, ratio
from stream_app.sample_log import service_log
from xl3m_core import Engine, LanguageModel, Method, Segment, Tail
from xl3m_core.inference.batching import batches
from xl3m_core.inference.loading import BUNDLED_MODEL

QUESTION = "What is the port of host web-137?"
WINDOW, QUESTION_TOKENS, ANSWER_TOKENS = 512, 64, 16
ROWS = {"model": 128, "100M": 8, "1B": 4, "7B": 64}
ROUNDS = 4

Batch = tuple[torch.Tensor, torch.Tensor]  # ids and mask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument(
        "--shapes", nargs="+", choices=[*ROWS], help="default: model, 100M and, without --short, 1B"
    )


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per shape."""
    small = LanguageModel.load(args.model or BUNDLED_MODEL)
    device, dtype = str(small.model.device).split(":")[0], small.model.dtype
    peak = peak_flops(device, dtype)
    shapes = args.shapes or (["model", "100M"] if args.short else ["model", "100M", "1B"])
    rows = []
    for shape in tqdm(shapes, desc="scoring", disable=None):
        other = shape != "model" and random_llama(shape, device, dtype)
        model = LanguageModel(other, small.tokenizer, WINDOW) if other else small
        rows.append({"shape": shape} | scored(model, ROWS[shape], peak, device))
    return rows


def ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """Speed over the hardware's peak, and over the bare forward."""
    goals = {"model": "0.40", "100M": "0.65", "1B": "0.75"}
    peak = [Ratio(f"{r['shape']} of peak", r["of_peak"], goals.get(r["shape"], "")) for r in rows]
    bare = [Ratio(f"{r['shape']} of bare forward", r["of_bare_forward"], "0.97") for r in rows]
    return peak + bare


def engine_of_full_rows(model: LanguageModel) -> Engine:
    """An engine whose rows fill a window of 512 tokens."""
    segment = WINDOW - QUESTION_TOKENS - ANSWER_TOKENS - 1
    return Engine(
        model,
        Method.fit(
            WINDOW,
            segment_tokens=segment,
            overlap_tokens=0,
            question_tokens=QUESTION_TOKENS,
            answer_tokens=ANSWER_TOKENS,
            k=1,
        ),
    )


def made_up(engine: Engine, count: int) -> list[Segment]:
    """That many segments of a made-up log."""
    lines, _ = service_log(lines=count * engine.method.segment_tokens // 12, seed=1)
    return engine.segmenter().push(Tail(), "\n".join(lines) + "\n")[1][:count]


def scored(model: LanguageModel, count: int, peak: float, device: str) -> dict[str, Any]:
    """The figures of scoring `count` segments; peak in FLOP/s."""
    engine = engine_of_full_rows(model)
    pairs = [(segment.text, QUESTION) for segment in made_up(engine, count)]
    rows = rows_of(engine, [text for text, _ in pairs])
    flops = forward_flops(model.model, [*map(len, rows)], keep=1)
    reads = [partial(_forward, model, *batch) for batch in batched(engine, rows)]
    calls: dict[str, Callable[[], Any]] = {
        "whole": partial(engine.score, pairs),
        "bare": partial(engine.executor.run, reads),
    }
    whole, bare = interleaved(calls, ROUNDS, device).values()
    return {
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "tokens_per_s": sum(map(len, rows)) / median(whole),
        "gflop_per_s": flops / median(whole) / 1e9,
        "of_peak": flops / median(whole) / peak,
        "bare_of_peak": flops / median(bare) / peak,
        "of_bare_forward": ratio(bare, whole),
    }


def rows_of(engine: Engine, texts: list[str]) -> list[list[int]]:
    """The engine's rows: the token ids of each text with the question after it."""
    bos, suffix = engine.model.bos, engine.suffix(QUESTION)
    return [[*bos, *ids, *suffix] for ids in engine.model.encode(texts)]


def batched(engine: Engine, rows: list[list[int]]) -> list[Batch]:
    """The engine's batches of these rows, on the device."""
    lengths = [*map(len, rows)]
    plan = batches(lengths, engine.budget(lengths), even=not engine.model.can_pad)
    return [engine.model.padded([rows[i] for i in chosen], 1) for chosen in plan]


@torch.inference_mode()
def _forward(model: LanguageModel, ids: torch.Tensor, mask: torch.Tensor) -> None:
    """A plain forward pass of the transformers model."""
    model.model(input_ids=ids, attention_mask=mask, logits_to_keep=1, use_cache=False)
