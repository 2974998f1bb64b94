"""Lesson: batches of the step a training has come to, written ahead by other processes.

A step of a GPU takes less time than its batch takes to write. It knows the curriculum; not who
learns, or when a step is passed.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any, cast

from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase

from training.batch import Batch
from training.curriculum import chosen
from training.writer import Writer

REPEATS = -1
"""The number of what comes before the first step: copying."""
AHEAD = 2
"""Batches each process has ready: when a step is passed, these are of the old one still."""


class Lesson(IterableDataset[Batch]):
    """Endless batches, `times` as large as the curriculum has them, of the step `at`."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, seed: int, real: tuple[str, ...], times: int
    ) -> None:
        self.tokenizer, self.seed, self.real, self.times = tokenizer, seed, real, times
        self.number = multiprocessing.Value("q", 0)

    def go_on(self, number: int) -> None:
        """What is written from now on is of that step."""
        self.number.value = number

    def __iter__(self) -> Iterator[Batch]:
        worker: Any = get_worker_info()
        writer = Writer(self.tokenizer, self.seed + (worker.id << 32 if worker else 0), self.real)
        while True:
            number = self.number.value
            if number == REPEATS:
                yield writer.repeats(32 * self.times, 32)
                continue
            step = chosen(writer.rng, number)
            yield writer.batch(step.level, step.tokens * self.times)

    def batches(self, processes: int) -> Iterator[Batch]:
        """The batches, written here where there are no other processes."""
        ahead = AHEAD if processes else None
        loader = DataLoader(self, None, num_workers=processes, prefetch_factor=ahead)
        return cast(Iterator[Batch], iter(loader))
