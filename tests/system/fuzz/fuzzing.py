"""Fuzzing: gives a target many inputs, counts accepted and refused ones, and fails on a fault.

A fault is any exception that is not a refusal, or an input that takes longer than `SLOWEST`. Guided
by coverage if atheris is installed; else by mutation only.
"""

import faulthandler
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.system.fuzz.mutate import LONGEST, mutated

SLOWEST = 5.0
"""Seconds an input may take; most take microseconds."""
HUNG = 60
"""Seconds per input after which the process prints its stack and exits."""


@dataclass
class Tally:
    """Counts of a target's inputs so far."""

    name: str
    call: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0

    def take(self, data: bytes) -> None:
        """Run one input. Raises the target's fault, with the input in its notes."""
        began = time.perf_counter()
        try:
            self.call(data)
            self.accepted += 1
        except self.refusals as reason:
            assert str(reason), "refused without a reason"
            self.refused += 1
        except Exception as error:
            error.add_note(f"{self.name}: {data!r}")
            raise
        took = time.perf_counter() - began
        self.inputs += 1
        self.slowest = max(self.slowest, took)
        if took > SLOWEST:
            raise TimeoutError(f"{self.name}: {took:.1f} s for {data!r}")

    def __str__(self) -> str:
        return (
            f"{self.name:24} {self.inputs:9,} inputs {self.accepted:9,} accepted "
            f"{self.refused:9,} refused   slowest {self.slowest * 1000:.1f} ms"
        )


def by_mutation(target: Any, tally: Tally, inputs: int, seed: int) -> None:
    """Run the seeds, then mutations of them."""
    random = Random(f"{seed} {target.name}")
    for data in target.seeds:
        tally.take(data)
    while tally.inputs < inputs:
        tally.take(mutated(random, random.choice(target.seeds), target.seeds))


def by_coverage(
    target: Any, tally: Tally, inputs: int, seed: int, done: Callable[[], None]
) -> None:
    """Run libFuzzer, which mutates inputs that reach new code; half of the mutations are ours. It
    calls `done`, then ends the process."""
    import atheris

    def one(data: bytes) -> None:
        faulthandler.dump_traceback_later(HUNG, exit=True)
        tally.take(data)
        if tally.inputs == inputs:
            done()

    def change(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, most))
        return mutated(Random(seed), data, target.seeds)[:most]

    with tempfile.TemporaryDirectory(prefix="xl3m-fuzz-") as folder:
        for i, data in enumerate(target.seeds):
            (Path(folder) / str(i)).write_bytes(data)
        options = [f"-runs={inputs}", f"-seed={seed + 1}", f"-max_len={LONGEST}", "-verbosity=0"]
        options += ["-rss_limit_mb=4096", f"-artifact_prefix={folder}-", folder]
        atheris.Setup([sys.argv[0], *options], one, custom_mutator=change)
        atheris.Fuzz()
