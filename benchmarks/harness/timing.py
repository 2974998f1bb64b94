"""Turns: calls timed side by side, so that a machine whose speed drifts slows all of them.

Knows calls and a clock; not what is called.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

from benchmarks.harness.hardware import seconds

T = TypeVar("T")


def in_turns(
    calls: Mapping[T, Callable[[], Any]], rounds: int, device: str = "cpu"
) -> dict[T, list[float]]:
    """The seconds of each call in each round.

    A round before the first is not counted. Every other one goes backwards: what comes first in
    all of them would find the caches colder than the rest.
    """
    for call in calls.values():
        call()
    taken: dict[T, list[float]] = {name: [] for name in calls}
    for n in range(rounds):
        for name in [*calls][:: -1 if n % 2 else 1]:
            taken[name].append(seconds(calls[name], device))
    return taken


def ratio(times: Sequence[float], rivals: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return median(time / rival for time, rival in zip(times, rivals, strict=True))
