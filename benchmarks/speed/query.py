"""What a query with a standing question waits for: its state from Redis, and the first token.

Assembly: everything from Redis in one round trip, ranked and spliced, compared with a bare read of
as many bytes by the same client, with many live streams. First token: `generate` compared with the
bare forward of the same prompt, cold and with the prompt prefilled. All are interleaved in one run,
the bare forward now before and now after the others. While scoring: the time to an answer's first
words compared with that of a batch, with scoring steps queued at the engine all the time.
"""

import argparse
import asyncio
import math
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event
from time import perf_counter, sleep
from typing import Any

import torch
from redis.asyncio import Redis
from tqdm import tqdm

from benchmarks.harness.hardware import random_llama, seconds
from benchmarks.harness.timing import Ratio, ratio
from benchmarks.speed.scoring import made_up
from stream_app.embedded import services
from stream_app.store.range_update import RangeUpdate
from stream_app.store.rows import Flag, pack_row
from stream_app.store.state import Commit, QuestionRecord, ScoredRange
from stream_app.store.store import StreamStore
from xl3m_core import Engine, KeyContext, LanguageModel, Segment, Tail
from xl3m_core.features import Features
from xl3m_core.inference.loading import BUNDLED_MODEL

QUESTION = "What is the port of host web-137?"
QID = "question"
STREAMS, SHORT_STREAMS = 1000, 100
READS, PROMPTS, SHORT_PROMPTS = 2000, 100, 20
ORDERS = ("bare", "cold", "warm"), ("cold", "warm", "bare")  # warm: the prefix cache that cold left
SEGMENTS = 20  # of a stream
PAUSE_SECONDS = 0.2  # seconds between answers
STEPS = 5  # before the first of them
PLENTY = 1 << 40


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per step that a query waits for."""
    engine = Engine(model := LanguageModel.load(args.model or BUNDLED_MODEL))
    streams = SHORT_STREAMS if args.short else STREAMS
    with tempfile.TemporaryDirectory() as folder, services.redis(Path(folder)) as redis:
        rows = asyncio.run(_assembly(redis.url, engine, streams))
    big = random_llama("100M", "cpu", model.model.dtype)
    other = LanguageModel(big, model.tokenizer, model.window)
    shapes = {"this model": engine, "100M": Engine(other)}
    for shape, each in tqdm(shapes.items(), desc="first token", disable=None):
        rows += first_token(shape, each, SHORT_PROMPTS if args.short else PROMPTS)
    return [*rows, first_words(engine, SHORT_PROMPTS if args.short else PROMPTS)]


def ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """Each row's time over its baseline's."""
    goals = {
        "key": "at most 2",
        "cold": "at most 1.1",
        "warm": "at most 0.3",
        "words": "at most 1",
    }
    return [
        Ratio(f"{row['what']} of {row['of']}", row["ratio"], goal)
        for row in rows
        for word, goal in goals.items()
        if word in row["what"]
    ]


async def _assembly(url: str, engine: Engine, streams: int) -> list[dict[str, Any]]:
    async with Redis.from_url(url) as redis:
        store = StreamStore(redis)
        names = [f"stream {i}" for i in range(streams)]
        segments = made_up(engine, SEGMENTS + streams)  # all streams differ
        for i, name in enumerate(tqdm(names, desc="streams", disable=None)):
            await fill(store, name, segments[i : i + SEGMENTS], engine.method.k)
        texts: Any = await redis.hvals(store.keys.text(names[0], QID))
        size = sum(map(len, texts))
        await redis.set("bytes", b"x" * size)

        async def whole(i: int) -> None:
            view = await store.snapshot(names[i % streams], QID)
            assert view
            engine.assemble([segment for segment, _ in view.top], QUESTION)

        calls: dict[str, Callable[[int], Awaitable[Any]]] = {
            "bare read": lambda _: redis.get("bytes"),
            "state and top-k read": lambda i: store.snapshot(names[i % streams], QID),
            "key context assembled": whole,
        }
        spent: dict[str, list[float]] = {what: [] for what in calls}
        for i in tqdm(range(READS), desc="reads", disable=None):
            for what, call in calls.items():
                started = perf_counter()
                await call(i)
                spent[what].append(perf_counter() - started)
    bare = p99(spent["bare read"])
    return [
        _row(what, times, p99(times) / bare, "p99 of a bare read") for what, times in spent.items()
    ]


async def fill(store: StreamStore, name: str, segments: list[Segment], k: int) -> None:
    """Store a stream of those segments, with the first k as its best."""
    base = await store.load(name)
    await store.commit([Commit(name, base, segments, Tail(len(segments)), "t/0", 1, 1)])
    await store.questions.ask(name, QID, QuestionRecord(QUESTION))
    count = len(segments)
    scores = [-i / 10 for i in range(count)]
    rows = b"".join(pack_row(score, Flag.READ, Features(-score)) for score in scores)
    seen = ScoredRange(count, count)
    await store.extend_range([RangeUpdate(name, QID, seen, 0, count, [(0, rows)])], k)


def first_token(
    shape: str, engine: Engine, prompts: int, device: str = "cpu"
) -> list[dict[str, Any]]:
    """The time to the first token. Every prompt starts differently: none shares a prefix."""
    segments, k = made_up(engine, prompts + 1 + engine.method.k), engine.method.k
    waits = list[dict[str, float]]()
    for i in range(prompts + 1):
        context = engine.assemble(segments[i : i + k], QUESTION)
        prompt = engine.prompt(context.text, QUESTION)
        waits.append(seconds_to_token(engine.model, prompt, ORDERS[i % 2], device))
    del waits[0]  # warm-up
    spent = {what: [each[what] for each in waits] for what in ORDERS[0]}
    return [
        _row(
            f"first token, {what}, {shape}",
            spent[what],
            ratio(spent[what], spent[baseline]),
            baseline,
        )
        for what, baseline in {"cold": "bare", "warm": "cold"}.items()
    ]


def seconds_to_token(
    model: LanguageModel, prompt: list[int], order: Sequence[str], device: str
) -> dict[str, float]:
    """Seconds to the prompt's next token: bare, with a cold prefix cache, with a warm one."""
    spent = dict[str, float]()
    for what in order:
        if what == "cold":
            model.prefix_cache.entries.clear()
        call = _forward if what == "bare" else _generated
        spent[what] = seconds(partial(call, model, prompt), device)
    return spent


def first_words(engine: Engine, prompts: int) -> dict[str, Any]:
    """The time to an answer's first words with an empty prefix cache, while steps are scored; the
    p99 is compared with the time of a scoring step."""
    method, spent = engine.method, list[float]()
    k, row = method.k, method.segment_tokens + method.question_tokens
    step = engine.executor.workers * engine.batch_tokens // row
    segments = made_up(engine, step + prompts + 1 + k)
    with scoring(engine, segments[-step:]) as batch:
        for i in range(prompts + 1):
            context = engine.assemble(segments[i : i + k], QUESTION)
            engine.model.prefix_cache.entries.clear()
            spent.append(_seconds_to_words(engine, context))
            sleep(
                PAUSE_SECONDS * (0.5 + i / prompts)
            )  # queries start at different points of a step
    del spent[0]  # warm-up
    return _row("first words while it scores", spent, p99(spent) / batch, "a batch")


def _seconds_to_words(engine: Engine, context: KeyContext) -> float:
    """Seconds to the first words, or to the end of an empty answer."""
    times, started = list[float](), perf_counter()
    engine.answer(context, QUESTION, lambda _: times.append(perf_counter() - started))
    return [*times, perf_counter() - started][0]


@contextmanager
def scoring(engine: Engine, segments: Sequence[Segment]) -> Iterator[float]:
    """Score these segments again and again, one step queued behind the one in progress; yields the
    seconds a step takes while nothing else runs."""
    took, over = list[float](), Event()
    pairs = [(segment.text, QUESTION) for segment in segments]

    def steps() -> None:
        current = engine.submit(pairs)
        while not over.is_set():
            following = engine.submit(pairs)
            took.append(current.result().seconds)
            current = following
        current.result()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(steps)
        try:
            while not (len(took) >= STEPS or running.done()):
                sleep(PAUSE_SECONDS)
            yield median(took)
        finally:
            over.set()
            running.result()


@torch.inference_mode()
def _forward(model: LanguageModel, prompt: list[int]) -> None:
    ids = torch.tensor([prompt], device=model.model.device)
    model.model(input_ids=ids, use_cache=True, logits_to_keep=1)


def _generated(model: LanguageModel, prompt: list[int]) -> None:
    model.generate(prompt, 1)


def p99(times: Sequence[float]) -> float:
    """The 99th percentile; of fewer than a hundred times, the largest."""
    return sorted(times)[math.ceil(0.99 * len(times)) - 1]


def _row(what: str, times: Sequence[float], ratio: float, baseline: str) -> dict[str, Any]:
    return {
        "what": what,
        "times": len(times),
        "median_ms": median(times) * 1e3,
        "high_ms": p99(times) * 1e3,
        "high": "p99" if len(times) >= 100 else "largest",
        "ratio": ratio,
        "of": baseline,
    }
