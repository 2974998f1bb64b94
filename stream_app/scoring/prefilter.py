"""Prefilter: which segments of a long log to score first for a late question.

Scoring a day of logs takes minutes, and a query waits for seconds. BM25 ranks the segments by
their words first, and the model scores the most promising ones before the rest (two-stage
retrieval). It only decides the order: in the end every segment is scored. The search runs in a
process of its own, at a lower priority, so that it takes no time from the worker's event loop.
"""

import asyncio
import heapq
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from stream_app.scoring.bm25 import Bm25
from stream_app.scoring.jobs import TrackedQuestion, TrackedStream
from stream_app.store.connection import open_redis
from stream_app.store.keys import DEFAULT_KEYS, Keys
from stream_app.store.store import StreamStore
from xl3m_core import Segment

logger = logging.getLogger("xl3m")
P = ParamSpec("P")
T = TypeVar("T")

PREFILTER_SEGMENTS = 2000
"""Logs with fewer unscored segments are scored in their own order."""
PREFILTER_SHARE = 0.05
BLOCK = 10_000
"""Segments that are indexed at a time, to bound memory; word frequencies are those of a block."""
NICE = 10
ATTEMPTS = 2


class PrefilterScheduler:
    """Finds candidates for the questions that queries wait for; None: never any."""

    def __init__(self, prefilter: "Prefilter | None") -> None:
        self.prefilter = prefilter
        self._searches: dict[tuple[str, str], _Search] = {}

    async def find_candidates(self, tracked: TrackedStream, stream: str, qid: str) -> None:
        """Give the question candidates, if much of the log is unscored for it and it has none.
        Queries for one question share a search."""
        question = tracked.questions.get(qid)
        if not (self.prefilter and question) or question.candidates:
            return
        parts = [part for part in question.unplanned(tracked.cursor) if part]
        if sum(map(len, parts)) < PREFILTER_SEGMENTS:
            return
        if (key := (stream, qid)) not in self._searches:
            searching = _give_candidates(self.prefilter, tracked, question, parts)
            self._searches[key] = _Search(asyncio.create_task(searching))
        await self._wait(key)

    async def _wait(self, key: tuple[str, str]) -> None:
        """Wait for the search; the last query that leaves cancels it."""
        search = self._searches[key]
        search.waiters += 1
        try:
            await asyncio.shield(search.task)
        finally:
            search.waiters -= 1
            if not search.waiters:
                search.task.cancel()
                del self._searches[key]


async def _give_candidates(
    prefilter: "Prefilter", tracked: TrackedStream, question: TrackedQuestion, parts: list[range]
) -> None:
    found = list[int]()
    for part in parts:
        limit = math.ceil(PREFILTER_SHARE * len(part))
        text = question.record.question
        found += await prefilter.candidates(question.stream, text, part.start, part.stop, limit)
    if current := tracked.questions.get(question.qid):  # it may have been read again meanwhile
        current.candidates = deque(found)


@dataclass(slots=True)
class _Search:
    """A search that queries share, and how many of them wait for it."""

    task: "asyncio.Task[None]"
    waiters: int = 0


class Prefilter:
    """Searches the logs in the Redis at the URL `redis`, one after the other."""

    def __init__(self, redis: str, keys: Keys = DEFAULT_KEYS) -> None:
        self.redis = redis
        self.keys = keys
        self._process = _Process()
        self._turn = asyncio.Semaphore(1)

    async def candidates(
        self, stream: str, question: str, lo: int, hi: int, limit: int
    ) -> list[int]:
        """At most `limit` of the segments [lo, hi), the most promising first; none on failure,
        which is logged."""
        args = (self.redis, self.keys.prefix, stream, question, lo, hi, limit)
        async with self._turn:
            for _ in range(ATTEMPTS):
                try:
                    return await self._process.run(_search, *args)
                except BrokenProcessPool:
                    logger.error("the prefilter's process died: it is started again")
                except Exception as error:
                    logger.warning("stream %r is scored in the order of its log: %s", stream, error)
                    return []
        logger.error("stream %r is scored in the order of its log", stream)
        return []


class _Process:
    """One process, started at the first call and again when it died. It ends with its parent."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result. If this is cancelled, the process is killed, since the call cannot
        be interrupted. Raises BrokenProcessPool if the process dies, and what the call raises."""
        try:
            pid = await asyncio.wrap_future(self._submit(os.getpid))
            try:
                return await asyncio.wrap_future(self._submit(call, *args, **kwargs))
            except asyncio.CancelledError:
                with suppress(ProcessLookupError):  # it died meanwhile
                    os.kill(pid, signal.SIGKILL)
                self._discard()
                raise
        except BrokenProcessPool:
            self._discard()
            raise

    def _submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Have the process make the call; it is started here if it does not run."""
        with _safe_path():
            self._pool = self._pool or ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn"), initializer=_initialize
            )
            return self._pool.submit(call, *args, **kwargs)

    def _discard(self) -> None:
        """Let the next call start a new process."""
        if self._pool:
            self._pool.shutdown(wait=False)
        self._pool = None


@contextmanager
def _safe_path() -> Iterator[None]:
    """Python processes started within look for no module in the working folder, as with
    `python -P`. multiprocessing passes our own search path on, but only after they have begun."""
    if sys.flags.safe_path:  # then multiprocessing gives them -P
        yield
        return
    os.putenv("PYTHONSAFEPATH", "1")
    try:
        yield
    finally:
        os.unsetenv("PYTHONSAFEPATH")


def _initialize() -> None:
    """In the process: lower its priority, leave Ctrl-C to the worker, and end with the worker."""
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _search(
    redis: str, prefix: str, stream: str, question: str, lo: int, hi: int, limit: int
) -> list[int]:
    """In the process: read the segments [lo, hi) from Redis and rank them."""

    async def search() -> list[int]:
        async with open_redis(redis) as client:
            store = StreamStore(client, keys=Keys(prefix))
            return await best(_blocks(store, stream, lo, hi), question, limit)

    return asyncio.run(search())


async def _blocks(
    store: StreamStore, stream: str, lo: int, hi: int
) -> AsyncIterator[list[Segment]]:
    for start in range(lo, hi, BLOCK):
        if block := await store.segments(stream, start, min(start + BLOCK, hi)):
            yield block


async def best(blocks: AsyncIterator[Sequence[Segment]], question: str, limit: int) -> list[int]:
    """The segments that rank highest by BM25, at most `limit`; none without a word of the
    question. Of equal scores the later segment comes first."""
    found = list[tuple[float, int]]()
    async for block in blocks:
        scores = Bm25([segment.text for segment in block]).scores(question)
        found += [(float(x), -s.index) for s, x in zip(block, scores, strict=True) if x > 0]
        found = heapq.nlargest(limit, found)
    return [-index for _, index in found]
