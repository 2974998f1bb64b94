"""Scorer: extends every question's scored range until it covers the log.

A step plans which segments to score, reads them, scores them with the model and writes the
ranges. Questions that a query waits for come first, then live edges, then history. While the model
scores one step, the step before it is written, and the next one is planned, read and queued, so
that the model's threads do not run idle between two steps.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

from stream_app.events import encode
from stream_app.scoring.jobs import ScoringJob, Step, range_update, row_of
from stream_app.scoring.planner import Planner, Selection
from stream_app.scoring.prefilter import Prefilter, PrefilterScheduler
from stream_app.scoring.skips import SkipWarning
from stream_app.scoring.streams import QuestionLoader, StreamRegistry
from stream_app.scoring.triage import Triage
from stream_app.scoring.waiters import Waiters
from stream_app.store.range_update import Extended, RangeResult, RangeUpdate
from stream_app.store.store import StreamStore
from xl3m_core import Engine, Segment
from xl3m_core.features import Features
from xl3m_core.scoring import Scores

logger = logging.getLogger("xl3m")

T = TypeVar("T")


class Scorer:
    """One per worker.

    max_lag_tokens: partitions with more unscored tokens are throttled. triage: none is; the most
    promising segments are scored first where scoring is far behind. step_seconds: about how
    long the model may be busy with a step; 0: a step is one batch. prefilter: finds candidates in
    long logs; None: logs are scored in their order. on_skipped: called with how many segments were
    deleted before they were scored. on_step: called with each step's fill and
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
        *,
        triage: bool = False,
        on_skipped: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.engine = engine
        self.store = store
        self.max_lag_segments = max(1, max_lag_tokens // engine.method.segment_tokens)
        most = engine.method.segment_tokens + engine.method.question_tokens
        self.prefilter = PrefilterScheduler(prefilter, store, engine.method.k, most)
        self.planner = Planner(engine, step_seconds, triage)
        self._wake = asyncio.Event()
        questions = QuestionLoader(engine, store)
        self.question_id = questions.question_id
        self.streams = StreamRegistry(store, questions, self._wake.set)
        self.waiters = Waiters(self.streams)
        self.triage = Triage(store, self.engine.words) if triage else None
        self.on_step, self.on_change, self.on_room = on_step, on_change, on_room
        self.skipping = SkipWarning(on_skipped)
        self.steps = 0
        self.model_calls = 0
        self.working = False
        self._calls = ThreadPoolExecutor(1, thread_name_prefix="calls")

    def throttled_partitions(self) -> set[str]:
        """Partitions with more unscored segments than the limit on the lag allows; none in
        triage."""
        if self.triage or self.streams.lag() <= self.max_lag_segments:
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
            prefiltering = asyncio.create_task(self.prefilter.find_candidates(tracked, stream, qid))
            try:
                await asyncio.wait_for(waiter.covered, until - time.monotonic())
            except TimeoutError:
                logger.info(
                    "stream %r: a query's deadline passed before its log was covered", stream
                )
            finally:
                prefiltering.cancel()

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
        warming = asyncio.create_task(self.prefilter.warm())
        try:
            await self._run()
        finally:
            warming.cancel()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            step = await self._next()
            scores = step and self._submit(step)
            while step and scores:
                self.working = True
                following = await self._next() if self._plans_ahead() else None
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

    def _plans_ahead(self) -> bool:
        """Whether to plan a step while the last one runs. Not in triage on a slow model, where it
        would not know of what comes in the seconds of that step."""
        if self.planner.is_urgent:
            self._wake.set()
        return not (self.streams.stale or self.planner.is_urgent)

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
        streams = len(self.streams.lagging)
        if self.triage:
            selections = chain(self.waiters.selections(), self._lagging())
            await self.triage.match_new(selections, self.planner.triage_above(streams))
        plan = self.planner.plan(self.waiters.selections(), self._lagging, streams)
        self._rotate(plan.jobs)
        if not plan.jobs:
            return None
        segments = await self._read(plan.jobs)
        return Step(plan.jobs, segments, plan.tokens, plan.fill)

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
        """Queue the step for the model, if it has anything for it."""
        if step.pairs:
            return asyncio.wrap_future(self.engine.submit(step.pairs))
        nothing = asyncio.get_running_loop().create_future()
        nothing.set_result(Scores([], 0.0))
        return nothing

    def _observe(self, step: Step, scores: Scores) -> None:
        """Measure what the step cost. Retention may have deleted some of its segments before."""
        self.model_calls += 1
        planned = sum(len(job.indices) for job in step.jobs)
        tokens = round(step.tokens * len(scores.features) / max(1, planned))
        self.planner.size.observe(tokens, scores.seconds)
        self.prefilter.observe(tokens, scores.seconds)
        self.on_step(step.fill, scores.seconds)

    async def _commit(self, step: Step, scores: Scores) -> None:
        """Write the step's scores, release the waiters they cover, and publish the changes."""
        self._observe(step, scores)
        updates = self._range_updates(step, scores.features)
        replies = await self.store.extend_range(updates, self.engine.method.k)
        written = list(zip(step.jobs, updates, replies, strict=True))
        for job, _, reply in written:
            self._apply(job, reply)
        self.steps += 1
        self._notify()
        changes = [(j, u) for j, u, reply in written if reply.result is RangeResult.TOP_CHANGED]
        await self._publish(changes)

    def _range_updates(self, step: Step, features: Sequence[Features]) -> list[RangeUpdate]:
        """The raw numbers, pair by pair, as one range update a job."""
        each = iter(features)
        return [
            range_update(job, {s.index: row_of(s, next(each), self.engine) for s in segments})
            for job, segments in zip(step.jobs, step.segments, strict=True)
        ]

    def _apply(self, job: ScoringJob, reply: Extended) -> None:
        """Note the range as it was written. If it was refused, since another worker wrote the
        range, or if the question was read again meanwhile, the stream is read again."""
        tracked, question = self.streams.tracked.get(job.stream), job.question
        if reply.result is RangeResult.CONFLICT:
            question.note_refused()
            self.streams.mark_stale(job.stream)
        elif tracked is None or tracked.questions.get(job.qid) is not question:
            question.reset_plan()
            self.streams.mark_stale(job.stream)
        else:
            skipped = question.scored_range.skipped
            question.written(job, reply)
            self.skipping.note(job.stream, question.scored_range.skipped - skipped)
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
