"""Scoring: drives every question's scored range towards the whole log.

Step by step: plan which segments to score, read them, run them through the model, write the
ranges. Queries come first, then live edges, then history. While the model scores one step, the
step before it is written and the next one is planned, read and queued, so that a worker thread
with nothing left of the one goes on with the other. Depends on ranges and segments, not on Kafka.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from stream_app.events import encode
from stream_app.runtime.retry import Health, retry_forever
from stream_app.scoring.jobs import ScoringJob, Step, TrackedStream, range_update
from stream_app.scoring.look_ahead import PrefilterScheduler
from stream_app.scoring.planner import AdaptiveStepSize, StepPlan, Wanted
from stream_app.scoring.prefilter import Prefilter
from stream_app.scoring.standing import QuestionLoader
from stream_app.scoring.streams import StreamRegistry
from stream_app.store.state import Cursor, RangeUpdate
from stream_app.store.store import StreamStore
from xl3m_core import Engine, Segment
from xl3m_core.scoring import Scores

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
        max_lag_tokens: int,
        step_seconds: float = 0.0,
        prefilter: Prefilter | None = None,
        on_step: Callable[[float, float], None] = lambda fill, seconds: None,
        on_change: Callable[[str, str], None] = lambda stream, qid: None,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine = engine
        self.store = store
        self.prefilter = PrefilterScheduler(prefilter)
        self.health = health
        self.max_lag_segments = max(1, max_lag_tokens // engine.method.segment_tokens)
        least = engine.method.segment_tokens + engine.method.question_tokens
        self.size = AdaptiveStepSize(engine.batch_tokens, least, step_seconds)
        self._wake = asyncio.Event()
        standing = QuestionLoader(engine, store)
        self.question_id = standing.question_id
        self.streams = StreamRegistry(store, standing, self._wake.set)
        self.waiters: list[Waiter] = []
        self.on_step, self.on_change, self.on_room = on_step, on_change, on_room
        self.steps = 0
        self.model_calls = 0
        self.working = False
        self._calls = ThreadPoolExecutor(1, thread_name_prefix="calls")

    def throttled_partitions(self) -> set[str]:
        """Partitions of whose streams more is read and unscored than the backlog allows."""
        if self.streams.lag() <= self.max_lag_segments:
            return set()  # all together they are not: there may be thousands of streams
        backlogs = self.streams.lag_by_partition()
        return {name for name, unscored in backlogs.items() if unscored > self.max_lag_segments}

    async def wait_until_covered(self, stream: str, qid: str, until: float) -> None:
        """Score for a question ahead of live edges and history, until all of the stream's log
        is covered or `time.monotonic()` is past `until`."""
        waiter = Waiter(stream, qid, asyncio.get_running_loop().create_future())
        watched = self.streams.tracked.setdefault(stream, TrackedStream(Cursor()))
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
        await self.prefilter.look(watched, stream, qid)
        self._wake.set()

    def run_on_model(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Run a call that is no scoring, one at a time. Answers take priority over the batches of
        steps that have not begun."""

        def counted() -> T:
            try:
                return call()
            finally:
                self.model_calls += 1

        return asyncio.get_running_loop().run_in_executor(self._calls, counted)

    # -- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Score for as long as there is anything to score, then wait.

        The next step is planned on the ranges as they will be when this one is written; if that
        write is refused, so is the next one's, and the ranges are read again.
        """
        while True:
            self._wake.clear()
            step = await self._next()
            scores = step and self._submit(step)
            while step and scores:
                self.working = True
                following = None if self.streams.stale else await self._next()
                following_scores = following and self._submit(following)
                await self._commit(step, await scores)
                step, scores = following, following_scores
            self.working = False
            await self._wake.wait()

    async def step(self) -> bool:
        """One step and nothing beside it; False if there was nothing to score."""
        step = await self._next()
        if step:
            await self._commit(step, await self._submit(step))
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
        behind = next(self._lagging(), None)
        plan.add(self._waiting(), plan.room * (3 if behind else 4) // 4, back=True)
        plan.add(self._lagging(), plan.room, back=False, at_least_one=True)
        plan.add(self._lagging(), plan.room, back=True)
        self.streams.rotate({work.stream for work in plan.jobs})
        self.waiters[:] = self.waiters[1:] + self.waiters[:1]
        return plan

    def _waiting(self) -> list[Wanted]:
        """What queries wait for, by stream."""
        asked: dict[str, dict[str, None]] = {}
        for waiter in self.waiters:
            asked.setdefault(waiter.stream, {})[waiter.qid] = None
        watched = self.streams.tracked
        return [Wanted(s, watched[s], [*qids]) for s, qids in asked.items()]

    def _lagging(self) -> Iterator[Wanted]:
        """Owned streams that have something to score for a current question; there may be
        thousands, and a step has room for few."""
        for stream in self.streams.lagging:
            if (watched := self.streams.tracked[stream]).owned:
                yield Wanted(stream, watched, [*watched.standing_questions()])

    async def _read(self, work: list[ScoringJob]) -> list[list[Segment]]:
        """Each work's segments; what several questions need is read once."""
        wanted = list(dict.fromkeys((w.stream, w.indices) for w in work))
        read = dict(zip(wanted, await self.store.logs(wanted), strict=True))
        return [read[w.stream, w.indices] for w in work]

    def _submit(self, step: Step) -> "asyncio.Future[Scores]":
        """Queue the step for the model."""
        return asyncio.wrap_future(self.engine.submit(step.pairs))

    def _observe(self, step: Step, scores: Scores) -> None:
        """Note what the step cost. Retention may have deleted some of its segments before."""
        self.model_calls += 1
        share = len(scores.values) / sum(len(work.indices) for work in step.jobs)
        self.size.observe(round(step.tokens * share), scores.seconds)
        self.on_step(step.fill, scores.seconds)

    async def _commit(self, step: Step, found: Scores) -> None:
        """Write the step's scores, and release the queries that waited for them."""
        self._observe(step, found)
        scores, k = iter(found.values), self.engine.method.k
        extensions = [
            range_update(w, {segment: next(scores) for segment in segments}, k, self._first(w))
            for w, segments in zip(step.jobs, step.segments, strict=True)
        ]
        replies = await retry_forever(
            self.health, "scoring", self.store.extend_range, extensions, k
        )
        written = list(zip(step.jobs, extensions, replies, strict=True))
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
        watched = self.streams.tracked.get(w.stream)
        return watched.cursor.first if watched else 0

    def _apply(self, w: ScoringJob, made: RangeUpdate, changed: bool | None) -> None:
        """Take the store's word for what became of an extension."""
        watched = self.streams.tracked.get(w.stream)
        if changed is None or watched is None or watched.questions.get(w.qid) is not w.tracked:
            w.tracked.planned = replace(w.tracked.scored_range)
            self.streams.mark_stale(w.stream)
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
            watched = self.streams.tracked.get(waiter.stream)
            standing = watched.questions.get(waiter.qid) if watched else None
            if not (watched and standing and standing.is_behind(waiter.head, watched.cursor.first)):
                waiter.covered.set_result(None)


def update_message(stream: str, question: str, qid: str, lo: int, hi: int) -> bytes:
    """What those who listen to a stream are told of a question's top-k: that of [lo, hi)."""
    fields = {"stream": stream, "question": question, "question_id": qid, "range": [lo, hi]}
    return encode(fields)


def _update(w: ScoringJob, made: RangeUpdate) -> bytes:
    return update_message(w.stream, w.tracked.record.question, w.qid, made.lo, made.hi)
