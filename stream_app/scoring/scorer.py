"""Scorer: extends every question's scored range until it covers the log.

A step plans which segments to score, reads them, scores them with the model and writes the
ranges. Questions that a query waits for come first, then live edges, then history. While the model
scores one step, the step before it is written, and the next one is planned, read and queued, so
that the model's threads do not run idle between two steps.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from stream_app.events import encode
from stream_app.scoring.jobs import ScoringJob, Step, TrackedStream, range_update
from stream_app.scoring.planner import AdaptiveStepSize, Selection, StepPlan
from stream_app.scoring.prefilter import Prefilter, PrefilterScheduler
from stream_app.scoring.streams import QuestionLoader, StreamRegistry
from stream_app.scoring.waiters import Waiters
from stream_app.store.state import RangeResult, RangeUpdate
from stream_app.store.store import StreamStore
from xl3m_core import Engine, Segment
from xl3m_core.scoring import Scores

logger = logging.getLogger("xl3m")

T = TypeVar("T")


class Scorer:
    """One per worker.

    max_lag_tokens: partitions with more unscored tokens are throttled. step_seconds: about how
    long the model may be busy with a step; 0: a step is one batch. prefilter: finds candidates in
    long logs; None: logs are scored in their order. on_step: called with each step's fill and
    seconds. on_change: called with the stream and the question's id when its top-k has changed.
    on_room: called when partitions may no longer be throttled.
    """

    def __init__(
        self,
        engine: Engine,
        store: StreamStore,
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
        self.max_lag_segments = max(1, max_lag_tokens // engine.method.segment_tokens)
        least = engine.method.segment_tokens + engine.method.question_tokens
        self.size = AdaptiveStepSize(engine.batch_tokens, least, step_seconds)
        self._wake = asyncio.Event()
        questions = QuestionLoader(engine, store)
        self.question_id = questions.question_id
        self.streams = StreamRegistry(store, questions, self._wake.set)
        self.waiters = Waiters(self.streams)
        self.on_step, self.on_change, self.on_room = on_step, on_change, on_room
        self.steps = 0
        self.model_calls = 0
        self.working = False
        self._calls = ThreadPoolExecutor(1, thread_name_prefix="calls")

    def throttled_partitions(self) -> set[str]:
        """Partitions with more unscored segments than the limit on the lag allows."""
        if self.streams.lag() <= self.max_lag_segments:
            return set()  # not even their sum is: there may be thousands of streams
        lag = self.streams.lag_by_partition()
        return {name for name, unscored in lag.items() if unscored > self.max_lag_segments}

    async def wait_until_covered(self, stream: str, qid: str, until: float) -> None:
        """Score for a question, with priority over live edges and history, until its range covers
        the stream's log, the question has ended, or `time.monotonic()` is past `until`."""
        with self.waiters.waiting(stream, qid) as (waiter, tracked):
            await self.streams.load(stream)
            waiter.head = tracked.cursor.head
            self.waiters.release()
            self._wake.set()
            prefiltering = asyncio.create_task(self._find_candidates(tracked, stream, qid))
            try:
                await asyncio.wait_for(waiter.covered, until - time.monotonic())
            except TimeoutError:
                logger.info(
                    "stream %r: a query's deadline passed before its log was covered", stream
                )
            finally:
                prefiltering.cancel()

    async def _find_candidates(self, tracked: TrackedStream, stream: str, qid: str) -> None:
        """Prefilter the log while scoring goes on."""
        await self.prefilter.find_candidates(tracked, stream, qid)
        self._wake.set()

    def run_on_model(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Run a call other than scoring, one at a time. Answers take priority over scoring batches
        that have not begun."""

        def counted() -> T:
            try:
                return call()
            finally:
                self.model_calls += 1

        return asyncio.get_running_loop().run_in_executor(self._calls, counted)

    # -- the loop ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Score for as long as there is anything to score, then wait.

        The next step is planned on the ranges as they will be once this one is written. If that
        write is refused, the next one's is refused, too, and the ranges are read again.
        """
        while True:
            self._wake.clear()
            step = await self._next()
            scores = step and self._submit(step)
            while step and scores:
                self.working = True
                following = None if self.streams.stale else await self._next()
                following_scores = following and self._submit(following)
                try:
                    await self._commit(step, await scores)
                except BaseException:
                    if following_scores:
                        following_scores.cancel()  # planned on a step that is not written
                    raise
                step, scores = following, following_scores
            self.working = False
            await self._wake.wait()

    async def step(self) -> bool:
        """Plan, score and write one step; False if nothing is unscored."""
        step = await self._next()
        if step:
            await self._commit(step, await self._submit(step))
        return step is not None

    async def _next(self) -> Step | None:
        """Plan a step and read its segments; None if nothing is unscored."""
        await self.streams.refresh()
        self._notify()
        plan = self._plan()
        self._rotate(plan.jobs)
        if not plan.jobs:
            return None
        segments = await self._read(plan.jobs)
        return Step(plan.jobs, segments, plan.tokens, plan.fill)

    def _plan(self) -> StepPlan:
        """The next step's jobs, which are in flight from now on: those that queries wait for, then
        live edges, then history.

        Queries get three quarters of a step, so that they do not hold up the live edges.
        """
        method, suffix = self.engine.method, self.engine.suffix
        plan = StepPlan(self.size.tokens, method.segment_tokens, lambda q: len(suffix(q)))
        any_lagging = next(self._lagging(), None) is not None
        plan.add(
            self.waiters.selections(), plan.room * (3 if any_lagging else 4) // 4, history=True
        )
        plan.add(self._lagging(), plan.room, history=False, at_least_one=True)
        plan.add(self._lagging(), plan.room, history=True)
        return plan

    def _rotate(self, jobs: list[ScoringJob]) -> None:
        """Round robin: streams that got jobs, and the first waiter, come last in the next step."""
        self.streams.rotate({job.stream for job in jobs})
        self.waiters.rotate()

    def _lagging(self) -> Iterator[Selection]:
        """Owned streams with unscored segments for a standing question. Lazily, as there may be
        thousands, and a step has room for few."""
        for stream in self.streams.lagging:
            if (tracked := self.streams.tracked[stream]).owned:
                yield tracked, tracked.standing_questions()

    async def _read(self, jobs: list[ScoringJob]) -> list[list[Segment]]:
        """Each job's segments; what several questions need is read once."""
        wanted = list(dict.fromkeys((job.stream, job.indices) for job in jobs))
        read = dict(zip(wanted, await self.store.logs(wanted), strict=True))
        return [read[job.stream, job.indices] for job in jobs]

    def _submit(self, step: Step) -> "asyncio.Future[Scores]":
        """Queue the step for the model."""
        return asyncio.wrap_future(self.engine.submit(step.pairs))

    def _observe(self, step: Step, scores: Scores) -> None:
        """Measure what the step cost. Retention may have deleted some of its segments before."""
        self.model_calls += 1
        share = len(scores.features) / sum(len(job.indices) for job in step.jobs)
        self.size.observe(round(step.tokens * share), scores.seconds)
        self.on_step(step.fill, scores.seconds)

    async def _commit(self, step: Step, scores: Scores) -> None:
        """Write the step's scores, release the waiters they cover, and publish the changes."""
        self._observe(step, scores)
        updates = self._range_updates(step, [*map(self.engine.relevance, scores.features)])
        results = await self.store.extend_range(updates, self.engine.method.k)
        for job, update, result in zip(step.jobs, updates, results, strict=True):
            self._apply(job, update, is_written=result is not RangeResult.CONFLICT)
        self.steps += 1
        self._notify()
        written = zip(step.jobs, updates, results, strict=True)
        changes = [(j, u) for j, u, result in written if result is RangeResult.TOP_CHANGED]
        await self._publish(changes)

    def _range_updates(self, step: Step, scores: list[float]) -> list[RangeUpdate]:
        """The scores, pair by pair, as one range update a job."""
        each = iter(scores)
        return [
            range_update(
                job,
                {segment: next(each) for segment in segments},
                self.engine.method.k,
                self._first_retained(job.stream),
            )
            for job, segments in zip(step.jobs, step.segments, strict=True)
        ]

    def _first_retained(self, stream: str) -> int:
        """The first segment of the log, as far as is known here."""
        tracked = self.streams.tracked.get(stream)
        return tracked.cursor.first if tracked else 0

    def _apply(self, job: ScoringJob, update: RangeUpdate, is_written: bool) -> None:
        """Note the range as it was written. If it was refused, since another worker wrote the
        range, or if the question was read again meanwhile, the stream is read again."""
        tracked, question = self.streams.tracked.get(job.stream), job.question
        if not is_written or tracked is None or tracked.questions.get(job.qid) is not question:
            question.reset_plan()
            self.streams.mark_stale(job.stream)
        else:
            scored = question.scored_range
            scored.lo, scored.hi = update.lo, update.hi
            scored.skipped += update.skipped
            self.streams.refresh_lag(job.stream)

    async def _publish(self, changes: list[tuple[ScoringJob, RangeUpdate]]) -> None:
        """Notify subscribers of the streams, and `on_change`, of each top-k that changed."""
        messages = [
            (
                self.store.keys.update_channel(job.stream),
                update_message(
                    job.stream, job.question.record.question, job.qid, update.lo, update.hi
                ),
            )
            for job, update in changes
        ]
        await self.store.publish(messages)
        for job, _ in changes:
            self.on_change(job.stream, job.qid)

    def _notify(self) -> None:
        """After any change of ranges: release waiters, and let ingest check for room again."""
        self.waiters.release()
        self.on_room()


def update_message(stream: str, question: str, qid: str, lo: int, hi: int) -> bytes:
    """The message to subscribers of the stream that a question's top-k changed: it is now that of
    segments [lo, hi)."""
    fields = {"stream": stream, "question": question, "question_id": qid, "range": [lo, hi]}
    return encode(fields)
