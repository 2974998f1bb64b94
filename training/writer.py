"""Writer: batches of passages, pairs or repeats as tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import torch
from transformers import PreTrainedTokenizerBase

from training.batch import Batch, Row
from training.corpus.entities import Source
from training.corpus.generate import Level
from training.corpus.passages import QUESTIONS, Passage, Piece, dense, exam
from training.random_pairs import Pairs, Signs, pairs_row

HARDER = ("sshd", "nginx", "kafka", "hdfs", "spark", "systemd")
"""Formats that are learned last: a key of many tokens among several lines of one kind."""
USUAL, LONGEST = 40, 72
"""The most tokens of a question with its answer. Longer ones are left out: they would pad the
whole batch."""
KINDS = {"text": 0, "answer": 1, "guess": 2}


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
        newline, ask, *digits = (
            int(ids[0])
            for ids in tokenizer([*"\n?0123456789"], add_special_tokens=False)["input_ids"]
        )
        self.signs = Signs(self.bos, newline, ask, tuple(digits), len(tokenizer))

    def encode(self, pieces: list[Piece]) -> Row:
        """The pieces as one row; no token spans two of them."""
        texts = [piece.text for piece in pieces]
        parts = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        row = Row([self.bos], [0], [0])
        for piece, ids in zip(pieces, parts, strict=True):
            row.add(ids, KINDS[piece.kind], piece.turn)
        return row

    def exam(self, level: Level, length: int) -> Row:
        """A passage of about that many tokens, then questions, each within the window.

        Most passages have one format, as logs do: then many lines resemble the right one.
        """
        if self.rng.random() < 0.85:
            twice = [shape for shape in level.shapes if shape in HARDER]
            level = replace(level, shapes=(self.rng.choice((*level.shapes, *twice)),))
        while True:
            row = self.encode(exam(self.source, level, Budget(length)).pieces)
            room = level.tokens - row.turns.count(0)
            sizes = Counter(row.turns)
            fits = {turn for turn, size in sizes.items() if turn == 0 or size <= min(room, LONGEST)}
            if len(fits) > 1:
                return row.only(fits)
            length -= 1 + level.tokens // 16  # the questions did not fit

    def pairs(self, level: Pairs) -> Row:
        """Lines of random tokens, and questions for their fields."""
        return pairs_row(self.rng, level, self.signs)

    def batch(self, level: Pairs | Level, tokens: int) -> Batch:
        """Rows that together have about that many tokens, all of one kind."""
        if isinstance(level, Pairs):
            first = self.pairs(level)
            more = (self.pairs(level) for _ in range(tokens // len(first.ids)))
            return Batch.of([first, *more], self.pad)
        level = replace(level, real=self.real)
        if self.rng.random() < level.exams:
            full = 0.7 if self.rng.random() < 0.8 else 0.05
            length = round(level.tokens * self.rng.uniform(full, 0.95))
            level = replace(level, shared=0.9 if self.rng.random() < 0.6 else level.shared)
            count = max(2, round(tokens / (length + QUESTIONS * USUAL)))
            rows = [self.exam(level, length) for _ in range(count)]
        else:
            budget, count = Budget(level.tokens), max(4, tokens // level.tokens)
            pieces = (dense(self.source, level, budget).pieces for _ in range(count))
            rows = [self.encode(each).first(level.tokens) for each in pieces]
        return Batch.of(rows, self.pad)

    def repeats(self, rows: int, length: int) -> Batch:
        """Random tokens, repeated once: the shortest way to learn copying."""
        seed = self.rng.getrandbits(40)
        once = torch.randint(
            3, self.signs.vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed)
        )
        kinds = [0] * (length + 1) + [1] * (length - 1)
        twice = [ids + ids for ids in once.tolist()]
        return Batch.of([Row(ids, kinds, [0] * len(ids)) for ids in twice], self.pad)


class Budget:
    """Tells when a passage has about that many tokens, estimated from its characters."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, passage: Passage) -> bool:
        characters = sum(len(piece.text) for piece in passage.pieces)
        return characters / 1.6 >= self.tokens
