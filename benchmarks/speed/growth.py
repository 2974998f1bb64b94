"""How cost grows: with the length of a text, the number of live streams, and k.

`length`: the whole method on one text, generated before the clock starts. `streams`: the same
traffic spread over that many streams, each with a standing question, written, planned and scored by
a model that costs nothing. `k`: reading a query's state and assembling its key context. The cost
of more questions is measured by `questions`.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from redis.asyncio import Redis
from tqdm import tqdm

from benchmarks.harness.haystack import Haystack
from benchmarks.harness.live_worker import resident_mb
from benchmarks.harness.stub_workers import Free
from benchmarks.harness.timing import Ratio, interleaved
from benchmarks.speed.query import PLENTY, QID, QUESTION, fill
from benchmarks.speed.scoring import made_up
from stream_app.embedded import services
from stream_app.scoring.scorer import Scorer
from stream_app.store.state import Commit, Committed, QuestionRecord, State
from stream_app.store.store import StreamStore
from training import plots
from xl3m_core import XL3M, Engine, LanguageModel, Method, Segment, Tail
from xl3m_core.inference.loading import BUNDLED_MODEL

LENGTHS, SHORT_LENGTHS = (10_000, 30_000, 100_000, 300_000), (5_000, 10_000, 20_000, 40_000)
READINGS = 2  # of each text
STREAMS, SHORT_STREAMS = (1, 10, 100, 1000, 10_000), (1, 10, 100, 1000)
TRAFFIC, ROUNDS = 500, 5  # segments a round
FEW = 100
KS, READS = (1, 2, 4, 8, 16), 500


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per size, and a plot of each kind."""
    engine = Engine(model := LanguageModel.load(args.model or BUNDLED_MODEL))
    rows = by_length(engine, SHORT_LENGTHS if args.short else LENGTHS)
    with tempfile.TemporaryDirectory() as folder, services.redis(Path(folder)) as redis:
        streams = SHORT_STREAMS if args.short else STREAMS
        rows += [
            _streams(redis.url, engine, n) for n in tqdm(streams, desc="streams", disable=None)
        ]
        rows += [_k(redis.url, model, k) for k in tqdm(KS, desc="k", disable=None)]
    for kind in ("length", "streams", "k"):
        points = [(row["at"], row["cost"]) for row in rows if row["with"] == kind]
        unit = next(row["unit"] for row in rows if row["with"] == kind)
        path = Path(args.out) / f"growth_{kind}.png"
        plots.lines(path, {f"cost by {kind}": {"": points}}, kind, unit, log_x=kind == "streams")
    return rows


def ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """The cost at the largest size over that at the smallest; for `length`, the cost per token;
    for `streams`, from 100 on, where each stream has few segments of the traffic."""
    found = list[Ratio]()
    for kind, goal in (("length", "1: linear"), ("streams", "1: flat"), ("k", "1: flat")):
        first, *_, last = (
            row
            for row in rows
            if row["with"] == kind and not (kind == "streams" and row["at"] < FEW)
        )
        ratio = last["cost"] / first["cost"]
        ratio *= first["at"] / last["at"] if kind == "length" else 1
        found.append(Ratio(f"{kind} {first['at']:,} to {last['at']:,}", ratio, goal))
    return found


def by_length(engine: Engine, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """A row per length, timed interleaved; resident memory is that after the first round."""
    calls, resident = dict[int, partial[None]](), dict[int, float]()

    def read(tokens: int, text: list[str], question: str) -> None:
        XL3M(engine).answer(text, question)
        resident.setdefault(tokens, resident_mb(os.getpid()))

    for tokens in tqdm(lengths, desc="length", disable=None):
        made = Haystack(engine.model.count_tokens, tokens)
        calls[tokens] = partial(read, tokens, [*made], made.needles[0].question)
    taken = interleaved(calls, READINGS)
    return [
        _row("length", tokens, median(spent), "seconds") | {"rss_mb": resident[tokens]}
        for tokens, spent in taken.items()
    ]


def _streams(url: str, engine: Engine, count: int) -> dict[str, Any]:
    free = Free(engine.model, engine.method, engine.batch_tokens)
    return _row("streams", count, asyncio.run(_spread(url, free, count)), "ms a segment")


async def _spread(url: str, engine: Engine, count: int) -> float:
    """Milliseconds per segment, from the commit of its text to that of its score."""
    async with Redis.from_url(url) as redis:
        await redis.flushdb()
        store = StreamStore(redis)
        scoring = Scorer(engine, store, PLENTY)
        names = [f"stream {i}" for i in range(count)]
        for name in names:
            await store.questions.ask(
                name, scoring.question_id(QUESTION), QuestionRecord(QUESTION, set_at=1.0)
            )
        scoring.streams.own(names)
        while await scoring.step():
            pass
        segments, spent = made_up(engine, TRAFFIC), list[float]()
        for i in range(ROUNDS):
            busy = [names[(i * TRAFFIC + j) % count] for j in range(min(count, TRAFFIC))]
            started = perf_counter()
            await _traffic(scoring, busy, segments)
            spent.append(perf_counter() - started)
    return 1000 * median(spent) / TRAFFIC


async def _traffic(scoring: Scorer, names: Sequence[str], segments: list[Segment]) -> None:
    """Commit the segments to these streams, in equal parts, and wait until all are scored."""
    store, each = scoring.store, iter(segments)
    commits = [
        _commit(name, state, [*islice(each, len(segments) // len(names))])
        for name, state in zip(names, await store.load_all(names), strict=True)
    ]
    for commit, result in zip(commits, await store.commit(commits), strict=True):
        assert isinstance(result, Committed), "this is the only writer"
        scoring.streams.on_commit(commit.stream, result.state.cursor)
    while await scoring.step():
        pass


def _commit(stream: str, base: State, segments: list[Segment]) -> Commit:
    offset = base.cursor.next.get("t/0", 0) + 1
    return Commit(stream, base, segments, Tail(), "t/0", 1, offset)


def _k(url: str, model: LanguageModel, k: int) -> dict[str, Any]:
    engine = Engine(model, Method.fit(model.window, k=k))
    return _row("k", k, asyncio.run(_assembled(url, engine)), "ms a query")


async def _assembled(url: str, engine: Engine) -> float:
    """Milliseconds to read a stream's state and assemble its k best segments."""
    async with Redis.from_url(url) as redis:
        store, spent = StreamStore(redis), list[float]()
        name = f"of {engine.method.k}"
        await fill(store, name, made_up(engine, 20), engine.method.k)
        for _ in range(READS):
            started = perf_counter()
            view = await store.snapshot(name, QID)
            assert view
            engine.assemble([segment for segment, _ in view.top], QUESTION)
            spent.append(perf_counter() - started)
    return 1000 * median(spent)


def _row(kind: str, at: int, cost: float, unit: str) -> dict[str, Any]:
    return {"with": kind, "at": at, "cost": cost, "unit": unit, "rss_mb": resident_mb(os.getpid())}
