"""Scoring: drives every question's scored range towards the whole log.

Step by step: plan which segments to score, read them, run them through the model, write the
ranges. What a query waits for comes first, then live edges, then history. While the model is at
one step, the last is written and the next is read, and begun as soon as a core has nothing left of
this one. Owns the model's two threads. Knows ranges and segments; no Kafka, no answers.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from stream_app.events import encode
from stream_app.runtime.retry import Health, retry_forever
from stream_app.scoring.jobs import ScoringJob, Step, TrackedStream, range_update
from stream_app.scoring.look_ahead import PrefilterScheduler
from stream_app.scoring.planner import AdaptiveStepSize, StepPlan, Wanted
from stream_app.scoring.prefilter import Prefilter
from stream_app.scoring.standing import StandingQuestions
from stream_app.scoring.streams import StreamRegistry
from stream_app.store.state import Cursor, RangeUpdate
from stream_app.store.store import StreamStore
from xl3m_core import Engine, Segment
from xl3m_core.engine import Begun

logger = logging.getLogger("xl3m")

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Waiter:
    """A query that waits until its question's range covers the log up to `head`, once known."""

    stream: str
    qid: str
    covered: "asyncio.Future[None]"
    head: int | None = None


class Scorer:
    """One per worker. step_seconds: how long the model may be busy with a step; 0: one batch,
    however long it takes."""

    def __init__(
        self,
        engine: Engine,
        store: StreamStore,
        health: Health,
        backlog_tokens: int,
        step_seconds: float = 0.0,
        scout: Prefilter | None = None,
        *,
        on_change: Callable[[str, str], None] = lambda stream, qid: None,
        on_step: Callable[[float, float], None] = lambda fill, seconds: None,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine = engine
        self.store = store
        self.ahead = PrefilterScheduler(scout)
        self.health = health
        self.backlog_segments = max(1, backlog_tokens // engine.method.segment_tokens)
        least = engine.method.segment_tokens + engine.method.question_tokens
        self.size = AdaptiveStepSize(engine.batch_tokens, least, step_seconds)
        self._wake = asyncio.Event()
        standing = StandingQuestions(engine, store)
        self.question_id = standing.id
        self.streams = StreamRegistry(store, standing, self._wake.set)
        self.waiters: list[Waiter] = []
        self.on_change, self.on_step, self.on_room = on_change, on_step, on_room
        self.steps = 0
        self.model_calls = 0
        self.working = False
        self._steps = ThreadPoolExecutor(1, thread_name_prefix="steps")
        self._others = ThreadPoolExecutor(1, thread_name_prefix="model")

    def far_behind(self) -> set[str]:
        """Partitions of whose streams more is read and unscored than the backlog allows."""
        if self.streams.backlog() <= self.backlog_segments:
            return set()  # all together they are not: there may be thousands of streams
        backlogs = self.streams.backlogs()
        return {name for name, unscored in backlogs.items() if unscored > self.backlog_segments}

    async def wait_until_covered(self, stream: str, qid: str, until: float) -> None:
        """Score for a question ahead of live edges and history, until all of the stream's log
        is covered or `time.monotonic()` is past `until`."""
        waiter = Waiter(stream, qid, asyncio.get_running_loop().create_future())
        watched = self.streams.watched.setdefault(stream, TrackedStream(Cursor()))
        self.waiters.append(waiter)
        watched.waiters += 1
        try:
            await self.streams.load(stream)
            waiter.head = watched.cursor.head
            self._release_waiters()
            self._wake.set()
            scouting = asyncio.create_task(self._look_ahead(watched, stream, qid))
            try:
                await asyncio.wait_for(waiter.covered, until - time.monotonic())
            finally:
                scouting.cancel()
        except TimeoutError:
            logger.info("stream %r: a query's deadline came before its log was covered", stream)
        finally:
            self.waiters.remove(waiter)
            watched.waiters -= 1
            self.streams.drop(stream)

    async def _look_ahead(self, watched: TrackedStream, stream: str, qid: str) -> None:
        """Have picked what to score first, while scoring goes on."""
        await self.ahead.look(watched, stream, qid)
        self._wake.set()

    def on_model(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Run a call that is no step, behind what is waiting of these: it goes ahead of the batches
        of steps that are not being read yet."""
        return self._run(self._others, call)

    def _run(self, thread: ThreadPoolExecutor, call: Callable[[], T]) -> "asyncio.Future[T]":
        def turn() -> T:
            try:
                return call()
            finally:
                self.model_calls += 1

        return asyncio.get_running_loop().run_in_executor(thread, turn)

    # -- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Score for as long as there is anything to score, then wait.

        What is read ahead was planned on ranges as they will be when all before is written; if
        a write is refused, so is what was planned on it, and the ranges are read again.
        """
        while True:
            self._wake.clear()
            step = await self._next()
            begun = step and self._begin(step)
            while step and begun:
                self.working = True
                following = None if self.streams.stale else await self._next()
                end = await begun
                begun = following and self._begin(following)
                await self._finish(step, await self._ended(step, end))
                step = following
            self.working = False
            await self._wake.wait()

    async def step(self) -> bool:
        """One step and nothing beside it; False if there was nothing to score."""
        step = await self._next()
        if step:
            await self._finish(step, await self._ended(step, await self._begin(step)))
        return step is not None

    async def _next(self) -> Step | None:
        """Plan a step and read its segments."""
        await retry_forever(self.health, "planning", self.streams.refresh)
        self._notify()
        plan = self._plan()
        if not plan.jobs:
            return None
        segments = await retry_forever(self.health, "planning", self._read, plan.jobs)
        return Step(plan.jobs, segments, plan.tokens, plan.fill)

    def _plan(self) -> StepPlan:
        """The next step's work: queries, then live edges, then history.

        Queries have three quarters of a step, so that they do not hold up the live edges.
        """
        method, suffix = self.engine.method, self.engine.suffix
        plan = StepPlan(self.size.tokens, method.segment_tokens, lambda q: len(suffix(q)))
        behind = next(self._behind(), None)
        plan.add(self._waiting(), plan.room * (3 if behind else 4) // 4, back=True)
        plan.add(self._behind(), plan.room, back=False, at_least_one=True)
        plan.add(self._behind(), plan.room, back=True)
        self.streams.rotate({work.stream for work in plan.jobs})
        self.waiters[:] = self.waiters[1:] + self.waiters[:1]
        return plan

    def _waiting(self) -> list[Wanted]:
        """What queries wait for, by stream."""
        asked: dict[str, dict[str, None]] = {}
        for waiter in self.waiters:
            asked.setdefault(waiter.stream, {})[waiter.qid] = None
        watched = self.streams.watched
        return [Wanted(s, watched[s], [*qids]) for s, qids in asked.items()]

    def _behind(self) -> Iterator[Wanted]:
        """Owned streams that have something to score for a current question; there may be
        thousands, and a step has room for few."""
        for stream in self.streams.lagging:
            if (watched := self.streams.watched[stream]).owned:
                yield Wanted(stream, watched, [*watched.current()])

    async def _read(self, work: list[ScoringJob]) -> list[list[Segment]]:
        """Each work's segments; what several questions need is read once."""
        wanted = list(dict.fromkeys((w.stream, w.indices) for w in work))
        read = dict(zip(wanted, await self.store.logs(wanted), strict=True))
        return [read[w.stream, w.indices] for w in work]

    def _begin(self, step: Step) -> "asyncio.Future[Begun]":
        """Have the model score the step: when all of it is being read, how to wait for the end."""
        return self._run(self._steps, partial(self.engine.begin, step.pairs))

    async def _ended(self, step: Step, begun: Begun) -> list[float]:
        """The step's scores. Of what was planned, some may be gone from the log."""
        scores, seconds = await asyncio.to_thread(begun)
        share = len(scores) / sum(len(work.indices) for work in step.job)
        self.size.observe(round(step.tokens * share), seconds)
        self.on_step(step.fill, seconds)
        return scores

    async def _finish(self, step: Step, found: list[float]) -> None:
        """Write the step's scores, and let go who waited for them."""
        scores, k = iter(found), self.engine.method.k
        extensions = [
            range_update(w, {segment: next(scores) for segment in segments}, k, self._first(w))
            for w, segments in zip(step.job, step.segments, strict=True)
        ]
        replies = await retry_forever(
            self.health, "scoring", self.store.extend_range, extensions, k
        )
        written = list(zip(step.job, extensions, replies, strict=True))
        for w, made, reply in written:
            self._apply(w, made, reply)
        self.steps += 1
        self._notify()
        changed = [(w, made) for w, made, reply in written if reply]
        told = [(self.store.keys.update_channel(w.stream), _update(w, made)) for w, made in changed]
        await retry_forever(self.health, "scoring", self.store.publish, told)
        for w, _ in changed:
            self.on_change(w.stream, w.qid)

    def _first(self, w: ScoringJob) -> int:
        """Where the log that was scored begins, as far as is known here."""
        watched = self.streams.watched.get(w.stream)
        return watched.cursor.first if watched else 0

    def _apply(self, w: ScoringJob, made: RangeUpdate, changed: bool | None) -> None:
        """Take the store's word for what became of an extension."""
        watched = self.streams.watched.get(w.stream)
        if changed is None or watched is None or watched.questions.get(w.qid) is not w.tracked:
            w.tracked.planned = replace(w.tracked.scored_range)
            self.streams.reload(w.stream)
        else:
            scored = w.tracked.scored_range
            scored.lo, scored.hi = made.lo, made.hi
            scored.skipped += made.skipped
            self.streams.refresh_lag(w.stream)

    def _notify(self) -> None:
        """Let ingest look for room again, and queries go whose ranges are covered."""
        self._release_waiters()
        self.on_room()

    def _release_waiters(self) -> None:
        """Let queries go whose ranges are covered, or whose question is gone."""
        for waiter in self.waiters:
            if waiter.head is None or waiter.covered.done():
                continue
            watched = self.streams.watched.get(waiter.stream)
            standing = watched.questions.get(waiter.qid) if watched else None
            if not (watched and standing and standing.is_behind(waiter.head, watched.cursor.first)):
                waiter.covered.set_result(None)


def update_message(stream: str, question: str, qid: str, lo: int, hi: int) -> bytes:
    """What those who listen to a stream are told of a question's top-k: that of [lo, hi)."""
    fields = {"stream": stream, "question": question, "question_id": qid, "range": [lo, hi]}
    return encode(fields)


def _update(w: ScoringJob, made: RangeUpdate) -> bytes:
    return update_message(w.stream, w.tracked.record.question, w.qid, made.lo, made.hi)
