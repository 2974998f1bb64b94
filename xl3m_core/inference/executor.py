"""ModelExecutor: runs batches side by side on CPU, each with a share of torch's threads.

Two threads that share a batch wait for each other at every matrix product, and longest where
another program uses one of the cores. Two threads with a batch each do not, and the faster one
takes the next batch. Answers take priority over scoring batches: no batch begins meanwhile. An
answer that is small compared with the batches in progress runs beside them; others wait for them.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from xl3m_core.inference.priority_gate import PriorityGate

T = TypeVar("T")
MAX_WORKERS = 4
"""Worker threads at most: each needs the memory of its own batch."""


class ModelExecutor:
    """Worker threads that share the threads torch has when this is created."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.gate = PriorityGate(is_exclusive=workers == 1)
        self._share = min(split_threads(torch.get_num_threads(), workers))
        self._pool = _pool(workers)

    @classmethod
    def on(cls, device: torch.device) -> "ModelExecutor":
        """On a CPU one worker for each of torch's threads, at most MAX_WORKERS; else one."""
        return cls(min(torch.get_num_threads(), MAX_WORKERS) if device.type == "cpu" else 1)

    def run(self, calls: Sequence[Callable[[], T]], size: int = 1) -> list[T]:
        """The result of each call, in their order. size: tokens of one call, about.

        A single call takes priority and runs in this thread; several are queued by `submit`.
        """
        if len(calls) != 1:
            return self.submit(calls, size).results()
        with self.priority(size):
            return [calls[0]()]

    def submit(self, calls: Sequence[Callable[[], T]], size: int = 1) -> "Job[T]":
        """Queue the calls for the workers, after those that were submitted before.

        Raises RuntimeError inside a `priority` block: the calls would wait for its end.
        """
        self.gate.check_outside()
        is_stopped = threading.Event()
        futures = [self._pool.submit(self._batch, call, size, is_stopped) for call in calls]
        return Job(futures, is_stopped)

    def _batch(self, call: Callable[[], T], size: int, is_stopped: threading.Event) -> T:
        with self.gate.batch(size):
            if is_stopped.is_set():
                raise CancelledError
            try:
                return call()
            except BaseException:
                is_stopped.set()
                raise

    @contextmanager
    def priority(self, size: float = math.inf) -> Iterator[Callable[[], None]]:
        """Run the block with priority over batches that have not begun. size: its tokens.

        With several workers, a block of at most half the size of the batches in progress runs
        beside them, with one worker's share of torch's threads; any other block waits for them and
        has all threads. Yields a function to call now and then: it takes the other threads as soon
        as they are idle. Raises RuntimeError inside another block.
        """
        with self.gate.section(size), self._claim_idle_threads() as claim:
            yield claim

    @contextmanager
    def _claim_idle_threads(self) -> Iterator[Callable[[], None]]:
        """One worker's share of torch's threads while batches run, else all of them.

        All of them are counted here, where no other thread changes the number.
        """
        threads = torch.get_num_threads()

        def claim() -> None:
            _set_threads(min(threads, self._share) if self.gate.running else threads)

        try:
            claim()
            yield claim
        finally:
            _set_threads(threads)


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """Calls that were submitted together: their futures in order. is_stopped: set once no further
    call may begin."""

    futures: Sequence[Future[T]]
    is_stopped: threading.Event

    def results(self) -> list[T]:
        """Wait for all calls. If one fails, no further call begins; its error is raised when those
        in progress have ended."""
        try:
            wait(self.futures)
        except BaseException:
            self.is_stopped.set()
            raise
        for error in (future.exception() for future in self.futures):
            if error and not isinstance(error, CancelledError):
                raise error
        return [future.result() for future in self.futures]


def _pool(workers: int) -> ThreadPoolExecutor:
    """Worker threads that split the threads torch has now; the calling thread keeps its own."""
    threads, all_started = torch.get_num_threads(), threading.Barrier(workers)
    shares = deque(split_threads(threads, workers))

    def start() -> None:
        torch.get_num_threads()  # otherwise torch sets this thread's number later, over this one
        torch.set_num_threads(shares.popleft())

    pool = ThreadPoolExecutor(workers, thread_name_prefix="model", initializer=start)
    try:
        wait([pool.submit(all_started.wait) for _ in range(workers)])
    except BaseException:
        all_started.abort()  # otherwise those that have started wait for ever
        raise
    torch.set_num_threads(threads)  # a thread that never set a number gets the last one set
    return pool


def _set_threads(threads: int) -> None:
    """Set this thread's number of torch threads, only if it differs: new threads inherit the number
    that was set last."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def split_threads(threads: int, workers: int) -> list[int]:
    """The threads of each worker: as evenly as possible, at least one each."""
    return [max(1, (threads + i) // workers) for i in range(workers)]
