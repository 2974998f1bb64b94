"""Prefilter: which segments of a long log to score first for a late question.

Scoring a day of logs takes minutes or hours, and a query waits for seconds. BM25 ranks the segments
by their words first, and the model scores the most promising ones before the rest (two-stage
retrieval). It only decides the order: in the end every segment is scored. The log is searched from
its newest block to the oldest, and each block's candidates are scored while the next is searched.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from stream_app.scoring.candidates import Offer, around, candidates, most_candidates
from stream_app.scoring.jobs import TrackedStream
from stream_app.scoring.search_process import SearchProcess
from stream_app.scoring.search_ranking import BlockHits, SearchRanking, search_block
from stream_app.store.connection import open_redis
from stream_app.store.keys import DEFAULT_KEYS, Keys
from stream_app.store.ranking import ranked
from stream_app.store.store import StreamStore

logger = logging.getLogger("xl3m")

PREFILTER_SECONDS = 1.0
"""A log that the model reads in less time is scored in its own order."""
UNKNOWN_SPEED = 1000.0
"""Tokens a second that are expected of a model that has not been measured yet."""
SMOOTHING = 0.7
FIRST_BLOCK, BLOCK = 1_000, 4_000
"""Segments that are searched at a time: fewer at first, so that there are candidates at once."""
BLOCK_HITS = 1_000
"""The best segments of a block that are merged with those of others."""
AROUND_SECONDS = 1.0
"""How often the neighbours of the best segments are looked for."""
ATTEMPTS = 2


class PrefilterScheduler:
    """Finds candidates for the questions that queries wait for. prefilter: None never finds any.
    k: size of the top-k; segment_tokens: the most in a segment with its question."""

    def __init__(
        self, prefilter: "Prefilter | None", store: StreamStore, k: int, segment_tokens: int
    ) -> None:
        self.prefilter = prefilter
        self.store = store
        self.k, self.segment_tokens = k, segment_tokens
        self.tokens_per_second = 0.0
        self._searches: dict[tuple[str, str], _Search] = {}

    async def warm(self) -> None:
        """Start the process that searches, so that the first query does not wait for it."""
        if self.prefilter:
            await self.prefilter.warm()

    def observe(self, tokens: int, seconds: float) -> None:
        """Take a measurement: the model read that many tokens in so many seconds."""
        if not tokens or seconds <= 0:
            return
        speed, known = tokens / seconds, self.tokens_per_second
        self.tokens_per_second = SMOOTHING * known + (1 - SMOOTHING) * speed if known else speed

    def seconds(self, segments: int) -> float:
        """About how long the model takes to score so many segments for a question."""
        return segments * self.segment_tokens / (self.tokens_per_second or UNKNOWN_SPEED)

    async def find_candidates(self, tracked: TrackedStream, stream: str, qid: str) -> None:
        """Give the question candidates until this is cancelled, if scoring the unscored part of its
        log takes long. Queries for one question share a search."""
        question = tracked.questions.get(qid)
        if not (self.prefilter and question):
            return
        key = stream, qid
        if key not in self._searches:
            parts = [part for part in question.unplanned(tracked.cursor) if part]
            if self.seconds(sum(map(len, parts))) < PREFILTER_SECONDS:
                return
            searching = self._give(self.prefilter, tracked, question.record.question, key, parts)
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

    async def _give(
        self,
        prefilter: "Prefilter",
        tracked: TrackedStream,
        text: str,
        key: tuple[str, str],
        parts: Sequence[range],
    ) -> None:
        """Give the question `text` the best segments found so far, block by block; then what
        surrounds those that the model finds best."""
        stream, qid = key
        offer, is_talk, order = Offer(), False, list[int]()
        most = most_candidates(sum(map(len, parts)), self.k)
        async for ranking in prefilter.search(stream, text, parts, most):
            is_talk = ranking.is_talk
            order = candidates(ranking.best(), is_talk, parts, self.k)
            _put(offer, tracked, qid, order)
        if not order:  # the search failed
            return
        while True:
            await asyncio.sleep(AROUND_SECONDS)
            await self._give_neighbours(offer, tracked, key, parts, is_talk)

    async def _give_neighbours(
        self,
        offer: Offer,
        tracked: TrackedStream,
        key: tuple[str, str],
        parts: Sequence[range],
        is_talk: bool,
    ) -> None:
        """Offer the neighbours of the best segments before the other candidates, once few of these
        are left: in a log none, in talk not enough for another top-k."""
        stream, qid = key
        question = tracked.questions.get(qid)
        if question is None or len(question.candidates) > (self.k if is_talk else 0):
            return
        if snapshot := await self.store.snapshot(stream, qid):
            if is_talk:
                snapshot = await self.store.with_unsettled(stream, qid, snapshot, self.k)
            near = around([segment.index for segment, _ in ranked(snapshot, self.k)], parts)
            offer.put(question, dict.fromkeys([*near, *question.candidates]))


def _put(offer: Offer, tracked: TrackedStream, qid: str, order: list[int]) -> None:
    if question := tracked.questions.get(qid):  # it may have been read again meanwhile
        offer.put(question, order)


@dataclass(slots=True)
class _Search:
    """A search that queries share, and how many of them wait for it."""

    task: "asyncio.Task[None]"
    waiters: int = 0


class Prefilter:
    """Searches the logs in the Redis at the URL `redis`, one block at a time."""

    def __init__(self, redis: str, keys: Keys = DEFAULT_KEYS) -> None:
        self.redis = redis
        self.keys = keys
        self._process = SearchProcess()
        self._turn = asyncio.Semaphore(1)

    async def warm(self) -> None:
        """Start the process. A failure is logged, and tried again at the first search."""
        try:
            await self._process.run(_imported)
        except (BrokenProcessPool, OSError) as error:
            logger.warning("the prefilter's process could not be started: %s", error)

    async def search(
        self, stream: str, question: str, parts: Sequence[range], most: int
    ) -> AsyncIterator[SearchRanking]:
        """After each block of the parts, from the newest on, the `most` best segments so far. Ends
        early on failure, which is logged."""
        ranking = SearchRanking(most)
        for lo, hi in blocks(parts):
            hits = await self._search(stream, question, lo, hi, min(most, BLOCK_HITS))
            if hits is None:
                return
            ranking.add(hits)
            yield ranking

    async def _search(
        self, stream: str, question: str, lo: int, hi: int, most: int
    ) -> BlockHits | None:
        """A block's hits. Searches of several questions take turns, block by block."""
        args = (self.redis, self.keys.prefix, stream, question, lo, hi, most)
        async with self._turn:
            for _ in range(ATTEMPTS):
                try:
                    return await self._process.run(_search, *args)
                except BrokenProcessPool:
                    logger.error("the prefilter's process died: it is started again")
                except Exception as error:
                    logger.warning("stream %r is scored in the order of its log: %s", stream, error)
                    return None
        logger.error("stream %r is scored in the order of its log", stream)
        return None


def blocks(parts: Sequence[range]) -> Iterator[tuple[int, int]]:
    """The parts as blocks [lo, hi), the newest first."""
    size = FIRST_BLOCK
    for part in sorted(parts, key=lambda part: -part.stop):
        hi = part.stop
        while hi > part.start:
            lo = max(part.start, hi - size)
            yield lo, hi
            hi, size = lo, BLOCK


def _imported() -> bool:
    """In the process: this module, and all that a search needs, has been imported."""
    return True


def _search(
    redis: str, prefix: str, stream: str, question: str, lo: int, hi: int, most: int
) -> BlockHits:
    """In the process: read the segments [lo, hi) from Redis and rank them."""

    async def search() -> BlockHits:
        async with open_redis(redis) as client:
            store = StreamStore(client, keys=Keys(prefix))
            return search_block(await store.segments(stream, lo, hi), question, most)

    return asyncio.run(search())
