"""`python -m benchmarks peers`: XL3M and its alternatives, with the same questions and model.

Needles in generated text at several depths, inside the model's window and far beyond it. XL3M's
questions are standing questions, so `tokens_per_s` includes scoring for all of them and `query_s`
only the answer; the others read the question when it is asked. Each peer runs in a process of its
own, with rising lengths, so `peak_mb` is its peak up to that row.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.accuracy.baselines import PEERS, WHOLE_INPUT, Peer, Reply, available
from benchmarks.harness.haystack import VARIANTS, Haystack, Needle
from training import plots
from xl3m_core import XL3M, Engine, XL3MError

LENGTHS, SHORT_LENGTHS = (410, 4_000, 16_000, 64_000), (400, 2_000, 8_000)
SHORT_VARIANTS = VARIANTS[:1]
TEXTS = 3
DEPTHS = (0.15, 0.5, 0.85)
MOST_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class Task:
    """A row to measure: a peer on texts of one length and variant, one for each seed."""

    peer: str
    variant: str
    tokens: int
    seeds: tuple[int, ...]
    most_tokens: int


@dataclass(frozen=True, slots=True)
class Run:
    """The results of one text and the questions about its needles, with the seconds it took."""

    tokens: int
    exact: tuple[bool, ...]
    found: tuple[bool | None, ...]
    read_s: float
    ask_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--peers", nargs="+", choices=PEERS, help="default: all")
    parser.add_argument(
        "--most-tokens", type=int, default=MOST_TOKENS,
        help="of a text that is read whole; default: %(default)s",
    )  # fmt: skip


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per peer, variant and length, and a plot of exact answers over the length."""
    tasks = _tasks(args)
    rows = []
    with tqdm(total=sum(map(len, tasks.values())), desc="peers", disable=None) as bar:
        for peer, some in tasks.items():
            for row in run(args.model, some):
                rows.append(row)
                bar.set_postfix_str(peer)
                bar.update()
    _plot(Path(args.out), rows)
    return rows


def _tasks(args: argparse.Namespace) -> dict[str, list[Task]]:
    """The rows of each peer, by rising length."""
    peers = [name for name in available() if name in (args.peers or PEERS)]
    variants = args.variants or (SHORT_VARIANTS if args.short else VARIANTS)
    lengths = sorted(args.lengths or (SHORT_LENGTHS if args.short else LENGTHS))
    texts = args.texts or (1 if args.short else TEXTS)
    seeds = tuple(args.seed + i for i in range(texts))
    return {
        peer: [Task(peer, v, n, seeds, args.most_tokens) for n in lengths for v in variants]
        for peer in peers
    }


# --- one process per peer -----------------------------------------------------------------

_engine: Engine


def run(model: str | None, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """The rows of one peer, each as soon as it is measured, in a process of the peer's own.

    The process is forked from a server that has imported PyTorch and done nothing else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.accuracy.peers"])
    with ProcessPoolExecutor(1, context, _load, (model, torch.get_num_threads())) as pool:
        for task, row in [(task, pool.submit(_row, task)) for task in tasks]:
            try:
                yield row.result()
            except BrokenProcessPool:
                yield _empty(task, "its process was killed: out of memory?")


def _load(model: str | None, threads: int) -> None:
    global _engine
    torch.set_num_threads(threads)
    _engine = XL3M.load(model).engine


def _row(task: Task) -> dict[str, Any]:
    """The measured row, or a row whose note says why it could not be measured."""
    if task.peer in WHOLE_INPUT and task.tokens > task.most_tokens:
        return _empty(task, f"more than --most-tokens {task.most_tokens}")
    try:
        return row(task, [run_text(_engine, task, seed) for seed in task.seeds])
    except (XL3MError, RuntimeError, IndexError) as error:  # position or memory out of range
        return _empty(task, str(error).strip().partition("\n")[0])


def run_text(engine: Engine, task: Task, seed: int) -> Run:
    """Read one text and ask about its needles."""
    haystack = Haystack(engine.model.count_tokens, task.tokens, task.variant, seed, DEPTHS)
    tokens = sum(engine.model.count_tokens([chunk])[0] for chunk in haystack)
    most = tokens + engine.method.question_tokens + engine.method.answer_tokens
    peer = PEERS[task.peer](engine, most)
    read_s = _read(peer, haystack, [needle.question for needle in haystack.needles])
    started = time.perf_counter()
    replies = [peer.ask(needle.question) for needle in haystack.needles]
    ask_s = time.perf_counter() - started
    pairs = list(zip(haystack.needles, replies, strict=True))
    exact = tuple(reply.answer.strip() == needle.answer for needle, reply in pairs)
    return Run(tokens, exact, tuple(found(*pair) for pair in pairs), read_s, ask_s)


def _read(peer: Peer, text: Iterable[str], questions: list[str]) -> float:
    """Seconds to read the text, without the time to generate it."""
    chunks = _Timed(text)
    started = time.perf_counter()
    peer.read(chunks, questions)
    return time.perf_counter() - started - chunks.seconds


class _Timed:
    """A text that measures how long it took to generate."""

    def __init__(self, text: Iterable[str]) -> None:
        self.text, self.seconds = text, 0.0

    def __iter__(self) -> Iterator[str]:
        chunks = iter(self.text)
        while True:
            started = time.perf_counter()
            chunk = next(chunks, None)
            self.seconds += time.perf_counter() - started
            if chunk is None:
                return
            yield chunk


def found(needle: Needle, reply: Reply) -> bool | None:
    """Whether the model's input had all the needle's lines, whole; None if it had all the text."""
    if reply.seen is None:
        return None
    seen = f"\n{reply.seen}\n"
    return all(f"\n{line.strip()}\n" in seen for line in needle.lines)


# --- figures ------------------------------------------------------------------------------


def row(task: Task, runs: Sequence[Run]) -> dict[str, Any]:
    """The figures of all texts as one row."""
    exact = [hit for run in runs for hit in run.exact]
    seen = [hit for run in runs for hit in run.found if hit is not None]
    return {
        "peer": task.peer,
        "variant": task.variant,
        "tokens": round(statistics.mean(run.tokens for run in runs)),
        "questions": len(exact),
        "exact_match": float(statistics.mean(exact)),
        "evidence_recall": float(statistics.mean(seen)) if seen else None,
        "tokens_per_s": sum(run.tokens for run in runs) / sum(run.read_s for run in runs),
        "query_s": sum(run.ask_s for run in runs) / len(exact),
        "peak_mb": peak_mb(),
        "note": "",
    }


def _empty(task: Task, note: str) -> dict[str, Any]:
    figures = ("exact_match", "evidence_recall", "tokens_per_s", "query_s", "peak_mb")
    return {
        "peer": task.peer,
        "variant": task.variant,
        "tokens": task.tokens,
        "questions": 0,
        **dict.fromkeys(figures),
        "note": note,
    }


def peak_mb() -> float:
    """Peak memory of this process in MiB: resident, and on the GPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return float(held + torch.cuda.max_memory_allocated()) / 2**20


def _plot(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row["exact_match"] is not None:
            series = panels.setdefault(row["variant"], {}).setdefault(row["peer"], [])
            series.append((row["tokens"], row["exact_match"]))
    if panels:
        plots.lines(out / "peers.png", panels, "tokens", "exact match", log_x=True)
