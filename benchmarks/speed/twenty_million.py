"""Twenty million tokens through the stream: Kafka, one worker, Redis, and standing questions.

Every question is set before the first token is read; a token counts once it is scored for all of
them. Speed and memory are sampled meanwhile, and each question is answered at the end. Retention is
raised so that the whole text is kept: `redis_mb` includes it.
"""

import argparse
import asyncio
import csv
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.harness.haystack import Haystack, Needle
from benchmarks.harness.live_worker import Live, Sample, live, stored
from stream_app.embedded import services
from stream_app.settings import Settings, kafka_home
from stream_app.settings.variables import variable
from training import plots
from xl3m_core import LanguageModel
from xl3m_core.inference.loading import BUNDLED_MODEL

TOKENS = 20_000_000
SHORT = 300_000
MILLION = 1_000_000
BYTES_PER_TOKEN = 16
"""Retention in bytes per token: twice the longest token that the segmenter expects."""
POINTS = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one question."""

    question: str
    expected: str
    answer: str
    right: bool
    evidence: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--tokens", type=int, default=TOKENS, help="length of the text")
    parser.add_argument(
        "--standing", type=int, default=5, help="standing questions, at evenly spaced depths"
    )


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row; writes the samples to a CSV file and two plots in args.out."""
    given = Settings.from_env(model=args.model)
    model = LanguageModel.load(given.model or BUNDLED_MODEL, window=given.context_window or None)
    tokens = SHORT if args.short else args.tokens
    haystack = Haystack(model.count_tokens, tokens, seed=args.seed, depths=depths(args.standing))
    settings = _retaining(given, tokens)
    with (
        tempfile.TemporaryDirectory(prefix="xl3m-bench-") as folder,
        services.redis(Path(folder)) as redis,
        services.kafka(Path(folder), kafka_home=kafka_home()) as kafka,
    ):
        here = settings.replace(broker=kafka.url, redis=redis.url)
        samples, outcomes = asyncio.run(_run(here, haystack, tokens, Path(folder)))
    save(samples, Path(args.out))
    return [row(samples, outcomes) | {"broker": kafka.kind}]


def depths(count: int) -> tuple[float, ...]:
    """`count` evenly spaced depths, from the start of the text to its end."""
    return tuple(i / (count - 1) for i in range(count)) if count > 1 else (0.5,)


def _retaining(settings: Settings, tokens: int) -> Settings:
    """The settings with retention for the whole text."""
    most = max(settings.retention_segments, tokens)
    size = max(settings.retention_bytes, tokens * BYTES_PER_TOKEN)
    segments, log = variable("retention_segments"), variable("retention_bytes")
    print(f"retention for the whole text: {segments}={most} {log}={size}")
    return settings.replace(retention_segments=most, retention_bytes=size)


async def _run(
    settings: Settings, haystack: Haystack, tokens: int, folder: Path
) -> tuple[list[Sample], list[Outcome]]:
    this: Any = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    async with live(settings, folder) as here:
        return await here.guarded(_read_and_ask(here, haystack, tokens))


async def _read_and_ask(
    here: Live, haystack: Haystack, tokens: int
) -> tuple[list[Sample], list[Outcome]]:
    chunks = tqdm(haystack, desc="text", unit=" chunks", disable=None)
    text = await asyncio.to_thread(stored, chunks, here.log.parent / "text")
    await here.stand([needle.question for needle in haystack.needles])
    with tqdm(total=tokens, unit="tok", unit_scale=True, desc="scored") as bar:

        def show(sample: Sample) -> None:
            bar.set_postfix_str(f"worker {sample.rss_mb:.0f} MB, Redis {sample.redis_mb:.0f} MB")
            bar.update(sample.tokens - bar.n)

        samples = await here.read(text, every=min(2.0, max(0.1, tokens / 1e7)), on_sample=show)
    return samples, [await _ask(here, needle) for needle in haystack.needles]


async def _ask(here: Live, needle: Needle) -> Outcome:
    """Ask one needle's question. Evidence counts as found if all its lines are in the context."""
    answer = await here.ask(needle.question)
    texts = [evidence["text"] for evidence in answer.get("evidence", ())]
    found = needle.told_by(texts)
    said = answer.get("answer") or f"({answer.get('error', 'no answer')})"
    right = said.strip() == needle.answer.strip()
    verdict = "right" if right else f"WRONG, it is {needle.answer}"
    where = "in" if found else "NOT in"
    print(f"{needle.depth:4.0%}  {needle.question}  {said}  ({verdict}; evidence {where} context)")
    return Outcome(needle.question, needle.answer, said, right, found)


def row(samples: Sequence[Sample], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of one run. A "million" is a fifth of the text if that is less."""
    end, part = samples[-1], part_tokens(samples)
    second = speed(samples, part, 2 * part)
    last = speed(samples, end.tokens - part, end.tokens)
    rss = next(sample.rss_mb for sample in samples if sample.tokens >= part)
    return {
        "tokens": end.tokens,
        "seconds": end.seconds,
        "tokens_per_s": end.tokens / end.seconds,
        "tokens_per_s_second_million": second,
        "tokens_per_s_last_million": last,
        "throughput_ratio": last / second,
        "rss_mb_at_1m": rss,
        "rss_mb_at_end": end.rss_mb,
        "rss_growth": end.rss_mb / rss - 1,
        "redis_mb": end.redis_mb,
        "questions": len(outcomes),
        "exact_match": sum(outcome.right for outcome in outcomes) / len(outcomes),
        "evidence_recall": sum(outcome.evidence for outcome in outcomes) / len(outcomes),
        "million": part,
    }


def part_tokens(samples: Sequence[Sample]) -> int:
    """How many tokens `million` means in a run of this length."""
    return min(MILLION, samples[-1].tokens // 5)


def speed(samples: Sequence[Sample], start: float, end: float) -> float:
    """Tokens per second between two counts of scored tokens."""
    return (end - start) / (seconds_at(samples, end) - seconds_at(samples, start))


def seconds_at(samples: Sequence[Sample], tokens: float) -> float:
    """When that many tokens were scored, interpolated between two samples. Raises ValueError if
    they never were."""
    for before, after in pairwise(samples):
        if before.tokens <= tokens <= after.tokens and after.tokens > before.tokens:
            share = (tokens - before.tokens) / (after.tokens - before.tokens)
            return before.seconds + share * (after.seconds - before.seconds)
    raise ValueError(f"{tokens:,.0f} tokens were never scored")


def save(samples: Sequence[Sample], folder: Path) -> None:
    """Write the samples as CSV, and plots of memory and speed over tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "twenty_million.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(field.name for field in fields(Sample))
        table.writerows(map(astuple, samples))
    x = "tokens read and scored"
    plots.lines(folder / "twenty_million_memory.png", {"memory": memory(samples)}, x, "MiB")
    speed_of = {"speed": {"worker": speeds(samples)}}
    plots.lines(folder / "twenty_million_speed.png", speed_of, x, "tokens/s")


def memory(samples: Sequence[Sample]) -> dict[str, list[tuple[float, float]]]:
    """Memory of worker and Redis, by tokens."""
    return {
        "worker, resident": [(sample.tokens, sample.rss_mb) for sample in samples],
        "Redis, used": [(sample.tokens, sample.redis_mb) for sample in samples],
    }


def speeds(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """Speed by tokens, over parts of equal length."""
    step = samples[-1].tokens / POINTS
    starts = [step * i for i in range(POINTS)]
    return [(start + step / 2, speed(samples, start, start + step)) for start in starts]
