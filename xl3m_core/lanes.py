"""Lanes: calls side by side on a processor, each with its share of torch's threads.

Two threads at one batch wait for each other at every matrix, and longest where another program
has one of the cores; two at a batch each do not, and the faster takes the next one. Knows
threads; not what is called.
"""

from collections import deque
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
        """What each call returns, in their order, in which they begin too. If one fails, its lane
        takes no other; when all lanes have ended, raises what it did."""
        lanes, threads = min(self.count, len(calls)), torch.get_num_threads()
        if lanes < 2:
            return [call() for call in calls]
        waiting, returned = deque(enumerate(calls)), dict[int, T]()
        begun = [
            self._pool.submit(_lane, share, waiting, returned) for share in shares(threads, lanes)
        ]
        wait(begun)
        torch.set_num_threads(threads)
        for one in begun:
            one.result()
        return [returned[n] for n in range(len(calls))]


def shares(threads: int, lanes: int) -> list[int]:
    """The threads as evenly as can be, one a lane at least."""
    return [max(1, (threads + i) // lanes) for i in range(lanes)]


def _lane(
    threads: int, waiting: deque[tuple[int, Callable[[], T]]], returned: dict[int, T]
) -> None:
    """Take call after call, as long as any waits."""
    torch.set_num_threads(threads)  # of this thread, and of whoever never said
    while waiting:
        try:
            n, call = waiting.popleft()
        except IndexError:  # another lane was faster
            return
        returned[n] = call()
