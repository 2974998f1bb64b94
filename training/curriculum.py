"""The steps of the training, from terse short passages to the full window, and their batches.

A step is passed when enough answers are right. It knows nothing of the model or of learning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.entities import Source
from training.formats import ALL
from training.generate import Level
from training.passages import Passage, Piece, dense, exam, single

FIRST = ("app", "syslog", "talk")
SHORT = Level(128, ("bare", *FIRST), filler=0.1, stamps=0.3, phrasings=99, absent=0.05, shared=0.6)
HARD = Level(
    512,
    ALL,
    filler=0.3,
    stamps=0.6,
    phrasings=99,
    absent=0.15,
    shared=0.6,
    paired=0.3,
    joint=0.08,
    others=0.3,
    several=0.06,
)
LEVELS = (
    Level(64, ("bare",), terse=1.0),
    Level(64, ("bare",), terse=0.3),
    Level(80, ("bare",), shared=0.3, phrasings=2),
    Level(96, ("bare", *FIRST), shared=0.5, phrasings=4),
    SHORT,
    replace(HARD, tokens=192, filler=0.1, absent=0.1, exams=0.3, joint=0.0),
    replace(HARD, tokens=256, tail=0.2, exams=0.5),
    replace(HARD, tokens=384, tail=0.25, exams=0.5),
    replace(HARD, tail=0.25, exams=0.5),
)
DRILL = replace(HARD, tokens=192, filler=0.1, shared=0.95, exams=0.6, absent=0.25, near=0.95)
GATES = (0.9, 0.9, 0.9, 0.92, 0.93, 0.9, 0.93, 0.95, 2.0)
KINDS = {"text": 0, "answer": 1, "guess": 2}


@dataclass(frozen=True)
class Batch:
    """Token ids (B, T), and what each token is: 0 text, 1 answer, 2 guess, -1 padding."""

    ids: Tensor
    kinds: Tensor


class Writer:
    """Writes batches of passages as tokens."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        real: tuple[str, ...] = (),
        held_out: bool = False,
    ) -> None:
        self.tokenizer, self.rng, self.real = tokenizer, Random(seed), real
        self.source = Source(self.rng, held_out)
        self.bos, self.pad = int(tokenizer.bos_token_id), int(tokenizer.pad_token_id)

    def encode(self, pieces: list[Piece]) -> tuple[list[int], list[int]]:
        """A row of ids and their kinds; pieces meet only where tokens do."""
        texts = [piece.text for piece in pieces]
        rows = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        ids, kinds = [self.bos], [0]
        for piece, row in zip(pieces, rows, strict=True):
            ids += row
            kinds += [KINDS[piece.kind]] * len(row)
        return ids, kinds

    def row(self, level: Level, kind: str) -> tuple[list[int], list[int]]:
        """One passage of at most the level's length."""
        if kind == "single":
            budget = Budget(self.rng.randint(30, level.tokens - 30))
            passage = single(self.source, level, budget, self.rng.random() < 2 * level.absent)
        elif kind == "exam":
            budget = Budget(self.rng.randint(level.tokens // 4, level.tokens // 2))
            passage = exam(self.source, level, budget)
        else:
            passage = dense(self.source, level, Budget(level.tokens))
        ids, kinds = self.encode(passage.pieces)
        if kind == "single" and len(ids) > level.tokens:
            return self.row(level, kind)
        return ids[: level.tokens], kinds[: level.tokens]

    def batch(self, level: Level, tokens: int) -> Batch:
        """Rows that together have about that many tokens, all of one kind."""
        level, chance = replace(level, real=self.real), self.rng.random()
        kind = "single" if chance < level.tail else "dense"
        if level.tail <= chance < level.tail + level.exams:
            kind = "exam"
        if kind == "single" and self.rng.random() < 0.6:
            level = replace(level, tokens=min(level.tokens, 160), absent=0.25)
        elif kind == "exam" and self.rng.random() < 0.6:
            level = replace(level, shared=0.9)
        rows = [self.row(level, kind) for _ in range(max(4, tokens // level.tokens))]
        width = max(len(ids) for ids, _ in rows)
        ids = [row + [self.pad] * (width - len(row)) for row, _ in rows]
        kinds = [row + [-1] * (width - len(row)) for _, row in rows]
        return Batch(torch.tensor(ids), torch.tensor(kinds))

    def repeats(self, rows: int, length: int, vocabulary: int) -> Batch:
        """Random tokens, and the same again: the shortest way to learn copying."""
        seed = self.rng.getrandbits(40)
        once = torch.randint(
            3, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed)
        )
        kinds = torch.zeros(rows, 2 * length, dtype=torch.long)
        kinds[:, length + 1 :] = 1
        return Batch(torch.cat([once, once], 1), kinds)


class Budget:
    """Says when a passage has about that many tokens; a guess from its characters."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, passage: Passage) -> bool:
        characters = sum(len(piece.text) for piece in passage.pieces)
        return characters / 1.6 >= self.tokens
