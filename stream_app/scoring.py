"""Scoring: drives every question's scored range towards the whole log.

One loop, one step at a time: plan which segments to score, run them through the model in one
go, write the ranges. What a query waits for comes first, then live edges, then history.
Owns the one model thread. Knows ranges and segments; no Kafka, no answers.
"""

import asyncio
import logging
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from stream_app import keys
from stream_app.events import encode
from stream_app.patience import Health, patiently
from stream_app.state import Asked, Cursor, Extension, Range
from stream_app.store import StreamStore
from xl3m_core import Engine, QuestionError, Segment, TopK

logger = logging.getLogger("xl3m")
T = TypeVar("T")
NAN = float("nan")
RELOADED_AT_ONCE = 64


@dataclass(slots=True)
class Standing:
    """A question of a stream and what is scored for it."""

    asked: Asked
    range: Range


@dataclass(slots=True)
class Watched:
    """A stream as scoring sees it; owned: its live edge is this worker's to score."""

    cursor: Cursor
    owned: bool = False
    questions: dict[str, Standing] = field(default_factory=dict)
    loading: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)


@dataclass(frozen=True, slots=True)
class Work:
    """Segments lo up to hi of a stream, to be scored for a question whose range is `seen`."""

    stream: str
    qid: str
    standing: Standing
    seen: Range
    lo: int
    hi: int


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
        """The stream's log was written to."""
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

    async def cover(self, stream: str, qid: str, deadline: float) -> None:
        """Score for a question ahead of everything else, until all of the stream's log is
        covered or so many seconds have passed."""
        waiter = Waiter(stream, qid, asyncio.get_running_loop().create_future())
        self.waiters.append(waiter)
        watched = self.streams.setdefault(stream, Watched(Cursor()))
        try:
            await self._load(stream)
            waiter.head = watched.cursor.head
            self._settle()
            self._wake.set()
            await asyncio.wait_for(waiter.covered, deadline)
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
        """The next step's work: queries, then live edges, then history, within one batch."""
        room = self.step_segments
        for work in self._candidates():
            if room <= 0:
                return
            room -= work.hi - work.lo
            yield work

    def _candidates(self) -> Iterator[Work]:
        planned: set[tuple[str, str]] = set()
        waiting = [(w.stream, w.qid) for w in self.waiters]
        behind = [(s, q) for s in self._rotated() for q in self.streams[s].questions]
        share = max(1, self.step_segments // max(1, len(behind)))
        turns = [(waiting, self.step_segments, True), (behind, share, False), (behind, share, True)]
        for pairs, most, back in turns:
            for stream, qid in pairs:
                work = self._next(stream, qid, most, back) if (stream, qid) not in planned else None
                if work:
                    planned.add((stream, qid))
                    yield work

    def _rotated(self) -> list[str]:
        """Owned streams that have something to score; the one that was first goes last."""
        streams = [s for s in self.behind if self.streams[s].owned]
        if streams:
            self.behind[streams[0]] = self.behind.pop(streams[0])
        return streams

    def _next(self, stream: str, qid: str, most: int, back: bool) -> Work | None:
        """What to score next of a range: its live edge, then (if `back`) what lies before it."""
        watched = self.streams.get(stream)
        standing = watched.questions.get(qid) if watched else None
        if watched is None or standing is None:
            return None
        seen, cursor = replace(standing.range), watched.cursor
        if seen.hi < cursor.head:
            return Work(stream, qid, standing, seen, seen.hi, min(seen.hi + most, cursor.head))
        if back and seen.lo > cursor.first:
            return Work(stream, qid, standing, seen, max(cursor.first, seen.lo - most), seen.lo)
        return None

    async def _step(self, work: list[Work]) -> None:
        """Read the segments, score them all in one call, write the ranges."""
        found = await asyncio.gather(*(self.store.segments(w.stream, w.lo, w.hi) for w in work))
        pairs = [
            (segment.text, w.standing.asked.question)
            for w, segments in zip(work, found, strict=True)
            for segment in segments
        ]
        scores = iter(await self.on_model(lambda: self.engine.score(pairs)))
        extensions = [
            self._extension(w, {segment: next(scores) for segment in segments})
            for w, segments in zip(work, found, strict=True)
        ]
        replies = await self.store.extend(extensions, self.engine.method.k)
        for w, extension, changed in zip(work, extensions, replies, strict=True):
            await self._apply(w, extension, changed)

    def _extension(self, w: Work, scores: dict[Segment, float]) -> Extension:
        """The work's scores as a change of its range; segments gone from the log are NaN there."""
        by_index = {segment.index: score for segment, score in scores.items()}
        top = TopK(self.engine.method.k)
        for index, score in by_index.items():
            top.add(index, score)
        chosen = dict(top.best())
        return Extension(
            stream=w.stream,
            qid=w.qid,
            seen=w.seen,
            lo=min(w.seen.lo, w.lo),
            hi=max(w.seen.hi, w.hi),
            start=w.lo,
            scores=array("f", [by_index.get(i, NAN) for i in range(w.lo, w.hi)]).tobytes(),
            best=[
                (segment, chosen[segment.index]) for segment in scores if segment.index in chosen
            ],
            skipped=(w.hi - w.lo) - len(scores),
        )

    async def _apply(self, w: Work, extension: Extension, changed: bool | None) -> None:
        """Take the store's word for what became of an extension."""
        watched = self.streams.get(w.stream)
        if changed is None or watched is None or watched.questions.get(w.qid) is not w.standing:
            self._reload(w.stream)
        else:
            scored = w.standing.range
            scored.lo, scored.hi = extension.lo, extension.hi
            scored.skipped += extension.skipped
            self._look_at(w.stream)
        if changed:
            update = {
                "stream": w.stream,
                "question": w.standing.asked.question,
                "question_id": w.qid,
                "range": [extension.lo, extension.hi],
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
        that what was read last is what is kept."""
        watched = self.streams.get(stream)
        if watched is None:
            return
        async with watched.loading:
            cursor = (await self.store.load(stream)).cursor
            standing = {}
            for qid, asked in (await self.store.questions(stream)).items():
                scored = await self.store.range(stream, qid)
                if scored and self._scores(qid, asked):
                    standing[qid] = Standing(asked, scored)
        if cursor.version >= watched.cursor.version:
            watched.cursor = cursor
        watched.questions = standing
        if self.streams.get(stream) is watched:
            self._look_at(stream)

    def _scores(self, qid: str, asked: Asked) -> bool:
        """Whether it is this worker's model that scores the question, and it fits its window."""
        try:
            self.engine.suffix(asked.question)
        except QuestionError as error:
            logger.error("question %r is left out: %s", asked.question[:80], error)
            return False
        return qid == self.question_id(asked.question)

    def question_id(self, question: str) -> str:
        """The question's id for this worker's model, wording and measure."""
        model = self.engine.model
        return keys.question_id(
            question, model.fingerprint, model.template, self.engine.method.measure
        )

    def _look_at(self, stream: str) -> None:
        """Note whether the stream has anything to score."""
        watched = self.streams[stream]
        owed = any(
            s.range.hi < watched.cursor.head or s.range.lo > watched.cursor.first
            for s in watched.questions.values()
            if not s.asked.until
        )
        if owed:
            self.behind.setdefault(stream)
            self._wake.set()
        else:
            self.behind.pop(stream, None)

    def _settle(self) -> None:
        """Let queries go whose ranges are covered, or whose question is gone."""
        for waiter in self.waiters:
            watched = self.streams.get(waiter.stream)
            standing = watched.questions.get(waiter.qid) if watched else None
            short = (
                watched
                and standing
                and (
                    standing.range.hi < (waiter.head or 0)
                    or standing.range.lo > watched.cursor.first
                )
            )
            if waiter.head is not None and not short and not waiter.covered.done():
                waiter.covered.set_result(None)

    def _drop_unwatched(self, stream: str) -> None:
        """Forget the stream if it is neither owned nor waited for."""
        owned = self.streams[stream].owned
        if not owned and all(waiter.stream != stream for waiter in self.waiters):
            del self.streams[stream]
            self.behind.pop(stream, None)
