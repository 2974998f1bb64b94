"""Scoring: drives every question's scored range towards the whole log.

One loop, one step at a time: plan which segments to score, run them through the model in one
go, write the ranges. What a query waits for comes first, then live edges, then history.
Owns the one model thread. Knows ranges and segments; no Kafka, no answers.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from stream_app import keys
from stream_app.events import encode
from stream_app.patience import Health, patiently
from stream_app.standing import StandingQuestions
from stream_app.state import Cursor, Extension, LostWritesError
from stream_app.store import StreamStore
from stream_app.work import Watched, Work, extension, next_work
from xl3m_core import Engine

logger = logging.getLogger("xl3m")
T = TypeVar("T")
RELOADED_AT_ONCE = 64


@dataclass(eq=False, slots=True)
class Waiter:
    """A query that waits until its question's range covers the log up to `head`, once known."""

    stream: str
    qid: str
    covered: "asyncio.Future[None]"
    head: int | None = None


class Scoring:
    """One per worker."""

    def __init__(
        self, engine: Engine, store: StreamStore, health: Health, backlog_tokens: int
    ) -> None:
        self.engine = engine
        self.store = store
        self.health = health
        self.backlog_segments = max(1, backlog_tokens // engine.method.segment_tokens)
        method = engine.method
        self.step_segments = max(
            1, engine.batch_tokens // (method.segment_tokens + method.question_tokens)
        )
        self.standing = StandingQuestions(engine, store)
        self.question_id = self.standing.id
        self.streams: dict[str, Watched] = {}
        self.behind: dict[str, None] = {}
        self.stale: set[str] = set()
        self.waiters: list[Waiter] = []
        self.steps = 0
        self.working = False
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._wake = asyncio.Event()
        self._room = asyncio.Event()

    # -- what others tell it -----------------------------------------------------------------

    def own(self, streams: list[str]) -> None:
        """The live edges of these streams are this worker's from now on."""
        for stream in streams:
            self.streams.setdefault(stream, Watched(Cursor())).owned = True
            self._reload(stream)

    def disown(self, streams: list[str]) -> None:
        """Another worker owns these streams now; what a query waits for is scored here still."""
        for stream in streams:
            if stream in self.streams:
                self.streams[stream].owned = False
                self._drop_unwatched(stream)

    def grew(self, stream: str, cursor: Cursor) -> None:
        """The log of a stream of this worker's was written to."""
        watched = self.streams.get(stream)
        if watched is None or not watched.owned:
            self.own([stream])
        elif watched.cursor.questions != cursor.questions:
            self._reload(stream)
        else:
            watched.cursor = cursor
            self._look_at(stream)

    def changed(self, stream: str) -> None:
        """The stream's questions were changed."""
        if stream in self.streams:
            self._reload(stream)

    async def room(self) -> None:
        """Wait until no more is read and unscored than the backlog allows."""
        while self.backlog() > self.backlog_segments:
            self._room.clear()
            await self._room.wait()

    def backlog(self) -> int:
        """Segments read but not scored for a current question of an owned stream."""
        return sum(
            max(0, watched.cursor.head - standing.range.hi)
            for stream in self.behind
            if (watched := self.streams[stream]).owned
            for standing in watched.questions.values()
            if not standing.asked.until
        )

    async def cover(self, stream: str, qid: str, until: float) -> None:
        """Score for a question ahead of live edges and history, until all of the stream's log
        is covered or `time.monotonic()` is past `until`."""
        waiter = Waiter(stream, qid, asyncio.get_running_loop().create_future())
        self.waiters.append(waiter)
        watched = self.streams.setdefault(stream, Watched(Cursor()))
        try:
            await self._load(stream)
            waiter.head = watched.cursor.head
            self._settle()
            self._wake.set()
            await asyncio.wait_for(waiter.covered, until - time.monotonic())
        except TimeoutError:
            logger.info("stream %r: a query's deadline came before its log was covered", stream)
        finally:
            self.waiters.remove(waiter)
            self._drop_unwatched(stream)

    async def on_model(self, call: Callable[[], T]) -> T:
        """Run a call on the model's thread, behind the step that is running."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, call)

    # -- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Score for as long as there is anything to score, then wait."""
        while True:
            self._wake.clear()
            if not await self.step():
                await self._wake.wait()

    async def step(self) -> bool:
        """Plan, score and write once; False if there was nothing to score."""
        await patiently(self.health, "scoring", self._refresh)
        work = list(self._plan())
        self.working = bool(work)
        if work:
            await patiently(self.health, "scoring", self._step, work)
            self.steps += 1
        self._settle()
        self._room.set()
        return bool(work)

    def _plan(self) -> Iterator[Work]:
        """The next step's work, within one batch: queries, then live edges, then history.

        Queries share three quarters of a step evenly, so that neither a large one nor all of
        them hold up the live edges.
        """
        waiting = list(dict.fromkeys((w.stream, w.qid) for w in self.waiters))
        behind = [(s, q) for s in self._rotated() for q in self.streams[s].questions]
        urgent = self.step_segments * (3 if behind else 4) // 4
        asked = max(1, urgent // max(1, len(waiting)))
        share = max(1, self.step_segments // max(1, len(behind)))
        room, planned = self.step_segments, set[tuple[str, str]]()
        for pairs, most, back in (
            (waiting, asked, True),
            (behind, share, False),
            (behind, share, True),
        ):
            for stream, qid in pairs:
                if room <= 0 or (stream, qid) in planned:
                    continue
                work = next_work(stream, qid, self.streams.get(stream), min(most, room), back)
                if work:
                    planned.add((stream, qid))
                    room -= work.hi - work.lo
                    yield work

    def _rotated(self) -> list[str]:
        """Owned streams that have something to score; what was first, of them and of the queries
        that wait, is last the next time."""
        self.waiters[:] = self.waiters[1:] + self.waiters[:1]
        streams = [s for s in self.behind if self.streams[s].owned]
        if streams:
            self.behind[streams[0]] = self.behind.pop(streams[0])
        return streams

    async def _step(self, work: list[Work]) -> None:
        """Read the segments, score them all in one call, write the ranges."""
        found = await asyncio.gather(*(self.store.segments(w.stream, w.lo, w.hi) for w in work))
        pairs = [
            (segment.text, w.standing.asked.question)
            for w, segments in zip(work, found, strict=True)
            for segment in segments
        ]
        scores = iter(await self.on_model(lambda: self.engine.score(pairs)))
        k = self.engine.method.k
        extensions = [
            extension(w, {segment: next(scores) for segment in segments}, k)
            for w, segments in zip(work, found, strict=True)
        ]
        replies = await self.store.extend(extensions, k)
        for w, made, changed in zip(work, extensions, replies, strict=True):
            await self._apply(w, made, changed)

    async def _apply(self, w: Work, made: Extension, changed: bool | None) -> None:
        """Take the store's word for what became of an extension."""
        watched = self.streams.get(w.stream)
        if changed is None or watched is None or watched.questions.get(w.qid) is not w.standing:
            self._reload(w.stream)
        else:
            scored = w.standing.range
            scored.lo, scored.hi = made.lo, made.hi
            scored.skipped += made.skipped
            self._look_at(w.stream)
        if changed:
            update = {
                "stream": w.stream,
                "question": w.standing.asked.question,
                "question_id": w.qid,
                "range": [made.lo, made.hi],
            }
            await self.store.redis.publish(keys.update_channel(w.stream), encode(update))

    # -- what it keeps of streams --------------------------------------------------------------

    def _reload(self, stream: str) -> None:
        self.stale.add(stream)
        self._wake.set()

    async def _refresh(self) -> None:
        """Read streams again that are not as they were seen, some at a time."""
        while self.stale:
            some = [self.stale.pop() for _ in range(min(len(self.stale), RELOADED_AT_ONCE))]
            try:
                await asyncio.gather(*map(self._load, some))
            except BaseException:
                self.stale.update(some)
                raise

    async def _load(self, stream: str) -> None:
        """Read where the stream stands, its questions and their ranges; one reader at a time, so
        that what was read last is what is kept. Raises LostWritesError if it went back."""
        watched = self.streams.get(stream)
        if watched is None:
            return
        async with watched.loading:
            known = watched.cursor.version
            cursor = (await self.store.load(stream)).cursor
            if cursor.version < known:
                raise LostWritesError(f"stream {stream!r}: Redis lost what it had taken")
            standing = await self.standing.of(stream, watched.owned)
        if cursor.version >= watched.cursor.version:
            watched.cursor = cursor
        watched.questions = standing
        if self.streams.get(stream) is watched:
            self._look_at(stream)

    def _look_at(self, stream: str) -> None:
        """Note whether the stream has anything to score."""
        watched = self.streams[stream]
        owed = any(
            standing.lacks(watched.cursor.head, watched.cursor.first)
            for standing in watched.questions.values()
            if not standing.asked.until
        )
        if owed:
            self.behind.setdefault(stream)
            self._wake.set()
        else:
            self.behind.pop(stream, None)

    def _settle(self) -> None:
        """Let queries go whose ranges are covered, or whose question is gone."""
        for waiter in self.waiters:
            if waiter.head is None or waiter.covered.done():
                continue
            watched = self.streams.get(waiter.stream)
            standing = watched.questions.get(waiter.qid) if watched else None
            if not (watched and standing and standing.lacks(waiter.head, watched.cursor.first)):
                waiter.covered.set_result(None)

    def _drop_unwatched(self, stream: str) -> None:
        """Forget the stream if it is neither owned nor waited for."""
        owned = self.streams[stream].owned
        if not owned and all(waiter.stream != stream for waiter in self.waiters):
            del self.streams[stream]
            self.behind.pop(stream, None)
