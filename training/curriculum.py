"""The steps of the training, from terse short passages to the full window, and their batches.

A step is passed when enough answers are right. Knows nothing of the model or of learning.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from training.entities import Source
from training.formats import ALL
from training.generate import Level
from training.passages import Passage, Piece, dense, exam
from xl3m_core.sight import side_by_side

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
    joint=0.1,
    others=0.3,
    several=0.12,
)
LEVELS = (
    Level(64, ("bare",), terse=1.0),
    Level(64, ("bare",), terse=0.3),
    Level(80, ("bare",), shared=0.3, phrasings=2),
    Level(96, ("bare", *FIRST), shared=0.5, phrasings=4),
    SHORT,
    replace(HARD, tokens=192, filler=0.1, absent=0.1, exams=0.3, joint=0.0),
    replace(HARD, tokens=256, exams=0.7),
    replace(HARD, tokens=384, exams=0.75),
    replace(HARD, exams=0.95),
)
DRILL = replace(HARD, tokens=192, filler=0.1, shared=0.95, exams=0.6, absent=0.25, near=0.95)
GATES = (0.9, 0.9, 0.9, 0.92, 0.93, 0.9, 0.93, 0.95, 2.0)
HARDER = ("sshd", "nginx", "kafka", "hdfs", "spark", "systemd")
"""Formats that are learnt last: a key of many tokens among several lines of one kind."""
KINDS = {"text": 0, "answer": 1, "guess": 2}


@dataclass(frozen=True)
class Row:
    """A passage's token ids, and of each token its kind and its question's number."""

    ids: list[int]
    kinds: list[int]
    turns: list[int]

    def only(self, turns: set[int]) -> Row:
        """The row without the other questions."""
        kept = [i for i, turn in enumerate(self.turns) if turn in turns]
        return Row(*([part[i] for i in kept] for part in (self.ids, self.kinds, self.turns)))

    def first(self, tokens: int) -> Row:
        """The row, cut off after so many tokens."""
        return Row(self.ids[:tokens], self.kinds[:tokens], self.turns[:tokens])


@dataclass(frozen=True)
class Batch:
    """Token ids (B, T), and what each token is: 0 text, 1 answer, 2 guess, -1 padding.

    `turns` (B, T) says which question a token belongs to, 0 the passage they are all about; see
    `xl3m_core.sight`.
    """

    ids: Tensor
    kinds: Tensor
    turns: Tensor

    @classmethod
    def of(cls, rows: list[Row], pad: int) -> Batch:
        """Rows padded on the right."""
        ids = pad_sequence([torch.tensor(row.ids) for row in rows], True, pad)
        kinds = pad_sequence([torch.tensor(row.kinds) for row in rows], True, -1)
        turns = pad_sequence([torch.tensor(row.turns) for row in rows], True, -1)
        return cls(ids, kinds, turns)

    def to(self, device: str) -> Batch:
        """The batch on a device."""
        return Batch(self.ids.to(device), self.kinds.to(device), self.turns.to(device))

    def inputs(self) -> dict[str, Tensor]:
        """What the model is given: all tokens but the last, where they stand and what they see."""
        turns = self.turns[:, :-1]
        if not bool((turns > 0).any()):
            return {"input_ids": self.ids[:, :-1]}
        sight, places = side_by_side(turns, torch.float32)
        return {
            "input_ids": self.ids[:, :-1],
            "attention_mask": sight,
            "position_ids": places,
        }


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

    def encode(self, pieces: list[Piece]) -> Row:
        """The pieces as one row; they meet only where tokens do."""
        texts = [piece.text for piece in pieces]
        parts = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        row = Row([self.bos], [0], [0])
        for piece, ids in zip(pieces, parts, strict=True):
            row.ids.extend(ids)
            row.kinds.extend([KINDS[piece.kind]] * len(ids))
            row.turns.extend([piece.turn] * len(ids))
        return row

    def exam(self, level: Level, length: int) -> Row:
        """A passage of about that many tokens and questions behind it, each within the window.

        Most are of one format, as a log is: there many lines could be the one asked for.
        """
        if self.rng.random() < 0.85:
            twice = [shape for shape in level.shapes if shape in HARDER]
            level = replace(level, shapes=(self.rng.choice((*level.shapes, *twice)),))
        while True:
            row = self.encode(exam(self.source, level, Budget(length)).pieces)
            room = level.tokens - row.turns.count(0)
            sizes = Counter(row.turns)
            fits = {turn for turn, size in sizes.items() if turn == 0 or size <= room}
            if len(fits) > 1:
                return row.only(fits)
            length -= 1 + level.tokens // 16  # its questions are longer than what was left

    def batch(self, level: Level, tokens: int) -> Batch:
        """Rows that together have about that many tokens, all of one kind."""
        level = replace(level, real=self.real)
        if self.rng.random() < level.exams:
            full = 0.7 if self.rng.random() < 0.8 else 0.05
            length = round(level.tokens * self.rng.uniform(full, 0.95))
            level = replace(level, shared=0.9 if self.rng.random() < 0.6 else level.shared)
            rows = [self.exam(level, length)]
            count = max(2, round(tokens / len(rows[0].ids)))
            rows += [self.exam(level, length) for _ in range(count - 1)]
        else:
            budget, count = Budget(level.tokens), max(4, tokens // level.tokens)
            pieces = (dense(self.source, level, budget).pieces for _ in range(count))
            rows = [self.encode(each).first(level.tokens) for each in pieces]
        return Batch.of(rows, self.pad)

    def repeats(self, rows: int, length: int, vocabulary: int) -> Batch:
        """Random tokens, and the same again: the shortest way to learn copying."""
        seed = self.rng.getrandbits(40)
        once = torch.randint(
            3, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed)
        )
        kinds = torch.zeros(rows, 2 * length, dtype=torch.long)
        kinds[:, length + 1 :] = 1
        return Batch(torch.cat([once, once], 1), kinds, torch.zeros_like(kinds))


class Budget:
    """Says when a passage has about that many tokens; a guess from its characters."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, passage: Passage) -> bool:
        characters = sum(len(piece.text) for piece in passage.pieces)
        return characters / 1.6 >= self.tokens
