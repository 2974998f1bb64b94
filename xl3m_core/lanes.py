"""Lanes: calls side by side on a processor, each with its share of torch's threads.

Two threads at one batch wait for each other at every matrix, and longest where another program
has one of the cores; two at a batch each do not, and the faster takes the next one. Who needs all
of the processor waits for the calls under way alone, not for those behind them. Knows threads; not
what is called.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
MOST = 4
"""Lanes at most: each has its own batch, and its memory."""


class Lanes:
    """So many calls at a time, with all the threads that torch has when this is made. What is
    started is begun in the order of its start, for one caller; others may be `alone` meanwhile."""

    def __init__(self, count: int) -> None:
        self.count, self.threads = count, torch.get_num_threads()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="lane")
        self._changed = threading.Condition()
        self._under_way, self._closed = 0, False
        self.held_up = 0

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
        run = _Run(deque(enumerate(calls)))
        if self.count == 1:
            self._lane(self.threads, run)
        elif len(calls) < 2:
            with self.alone():
                run.results.update((n, call()) for n, call in run.waiting)
        else:
            self._spread(run, min(self.count, len(calls)))
        return run.end

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing is under way in the block, which has all threads. Calls that were held up by a
        block go before the next one, so that neither waits for ever."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._closed or self.held_up))
            self._closed = True
            self._changed.wait_for(lambda: not self._under_way)
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()

    def _spread(self, run: "_Run[T]", lanes: int) -> None:
        """Have the lanes make the calls; return when all have begun."""
        run.lanes = [self._pool.submit(self._lane, n, run) for n in shares(self.threads, lanes)]
        run.begun.wait()
        torch.set_num_threads(self.threads)

    def _lane(self, threads: int, run: "_Run[T]") -> None:
        """Take call after call, as long as any waits."""
        torch.set_num_threads(threads)  # of this thread, and of whoever never said
        try:
            while taken := self._take(run):
                n, call = taken
                try:
                    run.results[n] = call()
                finally:
                    self._ended()
        finally:
            run.begun.set()  # a lane that fails is waited for by nobody

    def _take(self, run: "_Run[T]") -> tuple[int, Callable[[], T]] | None:
        """The next call, once nobody is alone."""
        with self._changed:
            self.held_up += 1
            self._changed.wait_for(lambda: not self._closed)
            self.held_up -= 1
            self._changed.notify_all()
            if not run.waiting:
                return None
            self._under_way += 1
            taken = run.waiting.popleft()
            if not run.waiting:
                run.begun.set()
            return taken

    def _ended(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()


@dataclass(slots=True)
class _Run(Generic[T]):
    """Calls that were started: which wait, and what the others returned."""

    waiting: deque[tuple[int, Callable[[], T]]]
    results: dict[int, T] = field(default_factory=dict)
    lanes: list[Future[None]] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)

    def end(self) -> list[T]:
        """Wait for all, and give what they returned, in their order."""
        wait(self.lanes)
        for lane in self.lanes:
            lane.result()
        return [self.results[n] for n in sorted(self.results)]


def shares(threads: int, lanes: int) -> list[int]:
    """The threads as evenly as can be, one a lane at least."""
    return [max(1, (threads + i) // lanes) for i in range(lanes)]
