"""Interleaved timing: calls alternate, so that a change of the machine's speed affects all alike.

`Ratio` is a figure of a benchmark that does not depend on how fast the machine is.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple, TypeVar

from benchmarks.harness.hardware import seconds

T = TypeVar("T")


class Ratio(NamedTuple):
    """What is compared with what, the measured ratio, and the ratio aimed at."""

    what: str
    ratio: float
    goal: str


def interleaved(
    calls: Mapping[T, Callable[[], Any]], rounds: int, device: str = "cpu"
) -> dict[T, list[float]]:
    """The seconds of each call in each round, after one round of warm-up.

    Every other round runs in reverse order, since the first call of a round has the coldest CPU
    caches.
    """
    for call in calls.values():
        call()
    times: dict[T, list[float]] = {name: [] for name in calls}
    for n in range(rounds):
        for name in [*calls][:: -1 if n % 2 else 1]:
            times[name].append(seconds(calls[name], device))
    return times


def ratio(times: Sequence[float], baseline: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return median(time / base for time, base in zip(times, baseline, strict=True))
