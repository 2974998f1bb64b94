"""Lanes: calls side by side on a processor, each with its share of torch's threads.

Two threads at one batch wait for each other at every matrix, and longest where another program
has one of the cores; two at a batch each do not, and the faster takes the next one. Who is in a
hurry goes ahead: no other call begins, and those under way are waited for only by what is not
small beside them. Knows threads; not what is called.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
MAX_WORKERS = 4
"""Lanes at most: each has its own batch, and its memory; what is small goes beside them."""


class ModelExecutor:
    """So many calls at a time, with a share each of the threads that torch has when this is made.
    What is started is begun in the order of its start; others may go `ahead` meanwhile."""

    def __init__(self, count: int) -> None:
        self.workers = count
        self._share = min(split_threads(torch.get_num_threads(), count))
        self._pool = _pool(count)
        self._changed = threading.Condition()
        self._under_way = list[int]()  # how large each is
        self._blocked, self._paused = 0, False
        self._queue = deque[object]()  # who is ahead, and who wants to be
        self._ahead = 0  # the thread that is

    @classmethod
    def on(cls, device: torch.device) -> "ModelExecutor":
        """As many as pay there: one, but on a processor with several threads."""
        return cls(min(torch.get_num_threads(), MAX_WORKERS) if device.type == "cpu" else 1)

    def run(self, calls: Sequence[Callable[[], T]], size: int = 1) -> list[T]:
        """What each call returns, in their order, in which they begin too. If one fails, no other
        begins; when those under way have ended, raises what it did."""
        return self.start(calls, size).end()

    def start(self, calls: Sequence[Callable[[], T]], size: int = 1) -> "Job[T]":
        """Begin to `run` the calls, each of about that size; returns when the last has begun, so
        that lanes which have nothing left go on with what is started then. A single call is made
        at once, ahead of all."""
        self._refuse_inside()
        run = Job(deque(enumerate(calls)), size)
        if len(calls) == 1:
            with self.priority(size):
                run.make(*run.waiting.popleft())
        elif calls:
            lanes = min(self.workers, len(calls))
            run.workers = [self._pool.submit(self._worker, run) for _ in range(lanes)]
            with run.watched():
                run.begun.wait()
        return run

    @contextmanager
    def priority(self, size: float = math.inf) -> Iterator[Callable[[], None]]:
        """No call begins in the block, and no other block. Blocks come in the order of their
        asking, and calls that one held up before the next: nobody waits for ever.

        Where there are several lanes, a block of at most half the size of what is under way begins
        beside it, with a lane's share of the threads; others have all, once that has ended. Gives
        what to call now and then, to have all of them as soon as they are free. Raises RuntimeError
        inside another block.
        """
        self._refuse_inside()
        me = object()
        with self._changed:
            self._queue.append(me)
        try:
            self._go_ahead(me, size)
            with self._claim_idle_threads() as settle:
                yield settle
        finally:
            with self._changed:
                if self._queue[0] is me:
                    self._paused, self._ahead = False, 0
                self._queue.remove(me)
                self._changed.notify_all()

    def _go_ahead(self, me: object, size: float) -> None:
        """Return when it is the block's turn, and nothing that it has to wait for is under way."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue[0] is me and not self._blocked)
            self._paused = True
            if self.workers == 1 or max(self._under_way, default=0) < 2 * size:
                self._changed.wait_for(lambda: not self._under_way)
            self._ahead = threading.get_ident()

    @contextmanager
    def _claim_idle_threads(self) -> Iterator[Callable[[], None]]:
        """A lane's share of the threads beside what is under way, else all; given is what looks
        again. How many are all is asked here, where nobody else has a share: who never said has
        what was said last."""
        threads = torch.get_num_threads()

        def settle() -> None:
            _have(min(threads, self._share) if self._under_way else threads)

        try:
            settle()
            yield settle
        finally:
            _have(threads)

    def _refuse_inside(self) -> None:
        if self._ahead == threading.get_ident():
            raise RuntimeError(
                "asked from inside an answer, by its `on_text`, say: the model is busy with that"
            )

    def _worker(self, run: "Job[T]") -> None:
        """Take call after call, as long as any waits."""
        try:
            with run.watched():
                while taken := self._take(run):
                    try:
                        run.make(*taken)
                    finally:
                        self._ended(run)
        finally:
            run.begun.set()  # a lane that fails is waited for by nobody

    def _take(self, run: "Job[T]") -> tuple[int, Callable[[], T]] | None:
        """The next call, once nobody is ahead."""
        with self._changed:
            if run.waiting and self._paused:
                self._blocked += 1
                self._changed.wait_for(lambda: not self._paused)
                self._blocked -= 1
                self._changed.notify_all()
            if run.failed or not run.waiting:
                return None
            self._under_way.append(run.size)
            taken = run.waiting.popleft()
            if not run.waiting:
                run.begun.set()
            return taken

    def _ended(self, run: "Job[T]") -> None:
        with self._changed:
            self._under_way.remove(run.size)
            self._changed.notify_all()


@dataclass(slots=True)
class Job(Generic[T]):
    """Calls that were started: which wait, about how large each is, what the others returned, and
    how long each took."""

    waiting: deque[tuple[int, Callable[[], T]]]
    size: int
    results: dict[int, T] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)
    workers: list[Future[None]] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)
    failed: bool = False

    def make(self, n: int, call: Callable[[], T]) -> None:
        """Make the call and note what comes of it."""
        began = time.perf_counter()
        self.results[n] = call()
        self.took.append(time.perf_counter() - began)

    def end(self) -> list[T]:
        """Wait for all, and give what they returned, in their order."""
        with self.watched():
            wait(self.workers)
        for lane in self.workers:
            lane.result()
        return [self.results[n] for n in sorted(self.results)]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """If the block fails, or is broken off, no other call begins."""
        try:
            yield
        except BaseException:
            self.failed = True
            raise

    @property
    def seconds(self) -> float:
        """How long the calls took, side by side, whatever went between them."""
        return sum(self.took) / max(1, len(self.workers))


def _pool(count: int) -> ThreadPoolExecutor:
    """So many threads that share those torch has now for the caller."""
    threads, all_there = torch.get_num_threads(), threading.Barrier(count)
    each = deque(split_threads(threads, count))

    def begin() -> None:
        torch.get_num_threads()  # else torch gives the thread its number later, over this one
        torch.set_num_threads(each.popleft())

    pool = ThreadPoolExecutor(count, thread_name_prefix="lane", initializer=begin)
    try:
        wait([pool.submit(all_there.wait) for _ in range(count)])
    except BaseException:
        all_there.abort()  # else those that are there wait for ever
        raise
    torch.set_num_threads(threads)  # it takes what was said last for whoever never said
    return pool


def _have(threads: int) -> None:
    """Have so many threads here; said only if it is not so: others take what was said last."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def split_threads(threads: int, lanes: int) -> list[int]:
    """The threads as evenly as can be, one a lane at least."""
    return [max(1, (threads + i) // lanes) for i in range(lanes)]
