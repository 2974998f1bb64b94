"""Measures the bundled model on passages it has not seen: answers, and entropy as relevance.

Names, most values and the wordings of questions are held out of the training. An answer is right
if greedy decoding gives it exactly. Uses the method's prompt, not its code.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from stream_app.sample_log import service_log
from training.batch import Row
from training.corpus.formats import ALL, KINDS
from training.corpus.generate import TEMPLATE, Level
from training.corpus.passages import Passage, Piece, single
from training.writer import Writer

LENGTHS = (128, 256, 384, 512)
SEGMENT = 128
"""Tokens of a segment of the method and its question."""
ROWS = 20
QUESTION_TOKENS = 60
"""Tokens left for a question and its answer: most take 25 to 40."""
BACKWARD = [*dict.fromkeys(kind.format for kind in KINDS if any(map(kind.backward, kind.asks)))]


@dataclass(frozen=True)
class Score:
    """Whether the answer is exact, and the entropy in nats of its first token."""

    exact: bool
    entropy: float


def level(shape: str, tokens: int, backward: float = 0.0) -> Level:
    """A level like the method's prompts; an absent key shares a part with a present one."""
    usual = Level(tokens, (shape,), filler=0.3, stamps=0.6, phrasings=99, shared=0.6, paired=0.3)
    return replace(usual, near=1.0, backward=backward)


@torch.inference_mode()
def score(model: Any, rows: list[Row]) -> list[Score]:
    """Scores rows that end with their answer, padded on the right."""
    if len(rows) > ROWS:
        return score(model, rows[:ROWS]) + score(model, rows[ROWS:])
    ids = pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True)
    logits = model(ids).logits.float()
    scores = []
    for index, row in enumerate(rows):
        first = next(place for place, kind in enumerate(row.kinds) if kind > 0)
        guess = logits[index, first - 1 : len(row.ids) - 1].argmax(-1).tolist()
        logs = logits[index, first - 1].log_softmax(-1)
        scores.append(Score(guess == row.ids[first:], float(-(logs.exp() * logs).sum())))
    return scores


def passages(writer: Writer, wanted: Level, count: int, absent: bool = False) -> list[Row]:
    """Rows of at most the level's tokens, with a context of all but QUESTION_TOKENS or more."""
    rows, tokens = list[Row](), wanted.tokens

    def enough(passage: Passage) -> bool:
        return len(writer.encode(passage.pieces).ids) >= tokens - QUESTION_TOKENS

    while len(rows) < count:
        row = writer.encode(single(writer.source, wanted, enough, absent).pieces)
        if len(row.ids) <= max(tokens, 60):
            rows.append(row)
    return rows


def auc(low: list[float], high: list[float]) -> float:
    """The chance that one of `low` is below one of `high`."""
    wins = sum((a < b) + 0.5 * (a == b) for a in low for b in high)
    return wins / (len(low) * len(high))


def log_trial(model: Any, writer: Writer, seed: int) -> tuple[int, bool]:
    """The rank of the segment with the evidence, and whether the answer from four is right."""
    lines, facts = service_log(60, 10_000 + seed)
    fact = Random(seed).choice(facts)
    texts = ["\n".join(lines[at : at + 3]) + "\n" for at in range(0, len(lines), 3)]
    question = Piece(TEMPLATE.format(question=fact.question))
    answer = Piece(fact.answer + "\n", "answer")
    scores = score(model, [writer.encode([Piece(text), question, answer]) for text in texts])
    spread = [one.entropy for one in scores]
    best = sorted(sorted(range(len(texts)), key=spread.__getitem__)[:4])
    row = writer.encode([*(Piece(texts[place]) for place in best), question, answer])
    return sorted(spread).index(spread[fact.line // 3]), score(model, [row])[0].exact


def exact(model: Any, writer: Writer, wanted: Level, count: int) -> float:
    """The share of questions of such passages that are answered exactly."""
    return sum(one.exact for one in score(model, passages(writer, wanted, count))) / count


def answers(model: Any, writer: Writer, count: int) -> dict[str, float]:
    """The share of exact answers by shape and length."""
    return {
        f"exact_{shape}_{tokens}": exact(model, writer, level(shape, tokens), count)
        for tokens in tqdm(LENGTHS)
        for shape in ALL
    }


def backward(model: Any, writer: Writer, count: int) -> dict[str, float]:
    """Exact answers by length where the value is before its key, which is harder to look up."""
    figures = {}
    for tokens in tqdm(LENGTHS):
        shares = [exact(model, writer, level(shape, tokens, 1.0), count) for shape in BACKWARD]
        figures[f"exact_backward_{tokens}"] = sum(shares) / len(shares)
    return figures


def relevance(model: Any, writer: Writer, count: int) -> dict[str, float]:
    """How well entropy separates passages with the evidence from those without."""
    told, untold = list[float](), list[float]()
    for shape in ALL:
        wanted = level(shape, SEGMENT)
        told += [one.entropy for one in score(model, passages(writer, wanted, count))]
        absent = passages(writer, wanted, count, absent=True)
        untold += [one.entropy for one in score(model, absent)]
    means = {"entropy_with": sum(told) / len(told), "entropy_without": sum(untold) / len(untold)}
    return {**means, "auc": auc(told, untold)}


def logs(model: Any, writer: Writer, count: int) -> dict[str, float]:
    """A small run of the method on the demo's log: 20 segments of three lines, k = 4."""
    trials = [log_trial(model, writer, seed) for seed in range(count)]
    return {
        "log_first": sum(rank == 0 for rank, _ in trials) / count,
        "log_first_four": sum(rank < 4 for rank, _ in trials) / count,
        "log_answered": sum(exact for _, exact in trials) / count,
    }


def measure(folder: Path, count: int, seed: int, dtype: str) -> dict[str, float]:
    """All figures, by name."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.eval()
    writer = Writer(AutoTokenizer.from_pretrained(folder), seed, held_out=True)
    return {
        "count": count,
        **answers(model, writer, count),
        **relevance(model, writer, count),
        **logs(model, writer, count),
        **backward(model, writer, count),
    }


def main() -> None:
    """Prints a table, and all figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1_000_003)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures = measure(args.model, args.count, args.seed, args.dtype)
    print("tokens " + "".join(f"{shape:>8}" for shape in ALL) + "     all")
    for tokens in LENGTHS:
        exact = [figures[f"exact_{shape}_{tokens}"] for shape in ALL]
        cells = (f"{share:8.3f}" for share in (*exact, sum(exact) / len(exact)))
        print(f"{tokens:6} " + "".join(cells))
    before = [f"{figures[f'exact_backward_{tokens}']:.3f}" for tokens in LENGTHS]
    print("value before its key:", *before)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
