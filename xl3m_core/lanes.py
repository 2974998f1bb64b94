"""Lanes: calls side by side on a processor, each with its share of torch's threads.

Two threads at one batch wait for each other at every matrix, and longest where another program
has one of the cores; two at a batch each do not. Knows threads; not what is called.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")
MOST = 4
"""Lanes at most: each has its own batch, and its memory."""


class Lanes:
    """So many calls at a time, for one caller at a time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="lane")

    @classmethod
    def on(cls, device: torch.device) -> "Lanes":
        """As many as pay there: one, but on a processor with several threads."""
        return cls(min(torch.get_num_threads(), MOST) if device.type == "cpu" else 1)

    def run(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """What each call returns, in their order. When all have ended, raises what the first of
        those that failed did."""
        if len(calls) < 2:
            return [call() for call in calls]
        threads = torch.get_num_threads()
        begun = [
            self._pool.submit(_with_threads, share, call)
            for share, call in zip(shares(threads, len(calls)), calls, strict=True)
        ]
        wait(begun)
        torch.set_num_threads(threads)
        return [one.result() for one in begun]


def shares(threads: int, lanes: int) -> list[int]:
    """The threads as evenly as can be, one a lane at least."""
    return [max(1, (threads + i) // lanes) for i in range(lanes)]


def _with_threads(count: int, call: Callable[[], T]) -> T:
    torch.set_num_threads(count)  # of this thread, and of whoever never said
    return call()
