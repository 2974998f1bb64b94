"""BatchLoader: batches for the current step of the curriculum, prepared by other processes.

A training step on a GPU takes less time than writing its batch, so batches are written in advance.
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
"""The number of the step before the first one, which trains copying."""
PREFETCHED_BATCHES = 2
"""Batches each process prepares in advance: after a step is passed, these are still its."""


class BatchLoader(IterableDataset[Batch]):
    """Endless batches of the current step, `times` as large as in the curriculum."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, seed: int, real: tuple[str, ...], times: int
    ) -> None:
        self.tokenizer, self.seed, self.real, self.times = tokenizer, seed, real, times
        self.number = multiprocessing.Value("q", 0)

    def set_step(self, number: int) -> None:
        """Write batches of that step from now on."""
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
        """The batches, written by that many processes, or by this one if it is 0."""
        prefetch = PREFETCHED_BATCHES if processes else None
        loader = DataLoader(self, None, num_workers=processes, prefetch_factor=prefetch)
        return cast(Iterator[Batch], iter(loader))
