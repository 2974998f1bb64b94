"""How near `Engine.score` comes to the bare forward pass on the same rows.

Whole rounds of both, in turns, so that a machine whose speed drifts slows both. The median
of the ratios is the figure: what tokenising, padding, entropy and Python cost.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from tqdm import tqdm

from stream_app.sample import service_log
from xl3m_core import Engine, LanguageModel, Method, Segment, Tail
from xl3m_core.loading import SMALL

QUESTION = "What is the port of host web-137?"
SEGMENTS = 400
ROUNDS = 5


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a batch size."""
    language_model = LanguageModel.load(args.model or SMALL)
    method = Method.fit(language_model.window)
    sizes = (1024, 4096, 16384)
    engines = [Engine(language_model, method, batch_tokens) for batch_tokens in sizes]
    segments = made_up(engines[0], SEGMENTS)
    return [_row(engine, segments) for engine in tqdm(engines, desc="scoring", disable=None)]


def made_up(engine: Engine, count: int) -> list[Segment]:
    """That many segments of a made-up log."""
    lines, _ = service_log(lines=count * 8, seed=1)
    return engine.segmenter().push(Tail(), "\n".join(lines) + "\n")[1][:count]


def _row(engine: Engine, segments: list[Segment]) -> dict[str, Any]:
    pairs = [(segment.text, QUESTION) for segment in segments]
    rows = [[*engine.model.bos, *ids, *engine.suffix(QUESTION)] for ids in _ids(engine, segments)]
    rows.sort(key=len, reverse=True)
    size = max(1, engine.batch_tokens // len(rows[0]))
    tokens = sum(map(len, rows))
    whole, bare = [], []
    for _ in range(ROUNDS):
        whole.append(_seconds(lambda: engine.score(pairs)))
        bare.append(_seconds(lambda: _forward(engine, rows, size)))
    ratio = median(b / w for b, w in zip(bare, whole, strict=True))
    return {
        "batch_tokens": engine.batch_tokens,
        "tokens_per_s": tokens / median(whole),
        "bare_tokens_per_s": tokens / median(bare),
        "of_bare_forward": ratio,
    }


def _ids(engine: Engine, segments: list[Segment]) -> list[list[int]]:
    return engine.model.encode([segment.text for segment in segments])


def _forward(engine: Engine, rows: list[list[int]], size: int) -> None:
    for start in range(0, len(rows), size):
        engine.model.logits(rows[start : start + size], keep=1)


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
