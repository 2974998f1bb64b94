"""Lanes: calls side by side on a processor, each with its share of torch's threads.

Two threads at one batch wait for each other at every matrix, and longest where another program
has one of the cores; two at a batch each do not, and the faster takes the next one. Knows
threads; not what is called.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
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
        self._begun: list[Future[None]] = []

    @classmethod
    def on(cls, device: torch.device) -> "Lanes":
        """As many as pay there: one, but on a processor with several threads."""
        return cls(min(torch.get_num_threads(), MOST) if device.type == "cpu" else 1)

    def run(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """What each call returns, in their order, in which they begin too. If one fails, its lane
        takes no other; when all lanes have ended, raises what it did."""
        return self.start(calls)()

    def start(self, calls: Sequence[Callable[[], T]]) -> Callable[[], list[T]]:
        """Begin to `run` the calls; returns when the last has begun, so that lanes which have
        nothing left go on with what is started then. What it returns waits for all to end."""
        lanes, threads = min(self.count, len(calls)), torch.get_num_threads()
        if lanes < 2:
            self.rest()
            found = [call() for call in calls]
            return lambda: found
        waiting, returned, taken = deque(enumerate(calls)), dict[int, T](), threading.Event()
        begun = [
            self._pool.submit(_lane, share, waiting, returned, taken)
            for share in shares(threads, lanes)
        ]
        self._begun = [one for one in self._begun if not one.done()] + begun
        taken.wait()
        torch.set_num_threads(threads)

        def end() -> list[T]:
            wait(begun)
            torch.set_num_threads(threads)
            for one in begun:
                one.result()
            return [returned[n] for n in range(len(calls))]

        return end

    def rest(self) -> None:
        """Return when all that was started has ended."""
        wait(self._begun)
        self._begun.clear()


def shares(threads: int, lanes: int) -> list[int]:
    """The threads as evenly as can be, one a lane at least."""
    return [max(1, (threads + i) // lanes) for i in range(lanes)]


def _lane(
    threads: int,
    waiting: deque[tuple[int, Callable[[], T]]],
    returned: dict[int, T],
    taken: threading.Event,
) -> None:
    """Take call after call, as long as any waits."""
    torch.set_num_threads(threads)  # of this thread, and of whoever never said
    try:
        while waiting:
            try:
                n, call = waiting.popleft()
            except IndexError:  # another lane was faster
                return
            if not waiting:
                taken.set()
            returned[n] = call()
    finally:
        taken.set()  # a lane that fails is waited for by nobody
