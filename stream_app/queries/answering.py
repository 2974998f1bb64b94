"""Answering: turns a query into an answer that says what it rests on.

The top-k, the tail and the question are read in one round trip. If the question's range covers the
log, generation follows at once. Otherwise the question is registered, the scorer extends its range
until it covers the log or the deadline is over, and all is read again. A reader of revisions gets
early answers meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from stream_app.queries.prefetch import PromptPrefetcher
from stream_app.queries.revisions import (
    Draft,
    Reader,
    RevisionPace,
    Revisions,
    same_segments,
)
from stream_app.queries.stopwatch import Stopwatch
from stream_app.queries.subject import RefusedError, Subject, basis_of, has_any_scores
from stream_app.requests import Query
from stream_app.scoring.jobs import row_of
from stream_app.scoring.scorer import Scorer
from stream_app.settings import MAX_DEADLINE, Settings
from stream_app.store.ranking import Ranked, ranked
from stream_app.store.state import QueryView, QuestionRecord, Snapshot
from stream_app.store.store import StreamStore
from xl3m_core import Answer, Engine, Evidence, Generated, KeyContext, QuestionError
from xl3m_core.relevance import SMOOTHED_MEASURES

logger = logging.getLogger("xl3m")
OnText = Callable[[str], None]
OnAnswer = Callable[[Answer, float], None]
"""Called with each answer and the seconds it took."""
T = TypeVar("T")

EXPIRY_MARGIN = 5.0
"""Seconds that scores outlive the longest deadline, so that the query can still read them."""
STEPS = ("cover", "read", "tail", "generate")
"""The steps of an answer's timings; "cover" is 0 if the range covered the log already."""


class Answering:
    """One per worker; answers any number of queries at once."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        store: StreamStore,
        scorer: Scorer,
        prefetcher: PromptPrefetcher,
        *,
        on_answer: OnAnswer = lambda answer, seconds: None,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.store = store
        self.scorer = scorer
        self.prefetcher = prefetcher
        self.on_answer = on_answer
        self.pace = RevisionPace(settings.first_answer_seconds)

    async def answer(
        self, query: Query, on_text: OnText | None = None, reader: Reader | None = None
    ) -> Answer:
        """The answer, or one with `error` set to the reason. on_text gets the text as it is
        generated; reader: gets revisions until the log is covered."""
        started = time.perf_counter()
        try:
            answer = await self._answer(query, on_text, reader)
        except (RefusedError, QuestionError) as error:
            answer = Answer(question=query.question or "", error=str(error))
        self.on_answer(answer, time.perf_counter() - started)
        return answer

    async def _answer(self, query: Query, on_text: OnText | None, reader: Reader | None) -> Answer:
        stopwatch = Stopwatch(STEPS)
        subject = await self._read(query, stopwatch, reader)
        qid, question, snapshot, _ = subject
        best, tail = await self._on_model(lambda: self._rank(snapshot, question))
        stopwatch.lap("tail")
        _, answer = await self._compose(query, subject, best, tail, stopwatch, on_text)
        self.prefetcher.note_query(query.stream, qid, question)
        return answer

    async def _compose(
        self,
        query: Query,
        subject: Subject,
        best: Ranked,
        tail: int,
        stopwatch: Stopwatch,
        on_text: OnText | None,
    ) -> tuple[Draft, Answer]:
        """Generate the answer from the ranked segments, unless the last draft is from the same."""
        segments, last = [segment for segment, _ in best], subject.last
        if last and last.ranked == segments:
            context, generated = last.context, last.generated
            if on_text:
                on_text(generated.text)
        else:
            context, generated = await self._generate(best, subject.question, on_text)
        stopwatch.lap("generate")
        scores = {segment.index: score for segment, score in best}
        answer = Answer(
            question=subject.question,
            answer=generated.text,
            certainty=generated.certainty,
            coverage=subject.snapshot.coverage(tail),
            as_of=subject.snapshot.state.cursor.next,
            evidence=tuple(Evidence.of(query.stream, s, scores[s.index]) for s in context.segments),
            timings=stopwatch.laps,
        )
        return Draft(basis_of(subject.snapshot), segments, context, generated), answer

    async def _read(self, query: Query, stopwatch: Stopwatch, reader: Reader | None) -> Subject:
        """The question and its top-k, once its range covers the log or the deadline is over.

        Round trips to Redis: one for a covered standing question, two for a covered ad hoc
        question, whose time to live is renewed; else four, without those of the scorer and of
        revisions.
        """
        limit = self.settings.query_deadline_seconds if query.deadline is None else query.deadline
        deadline = time.monotonic() + limit
        view = await self._view(query.stream, (query.question and self._id(query.question)) or "")
        question = self._question(query, view)
        qid, last = self._id(question), None
        is_covered = view.qid == qid and view.is_covered
        if not (is_covered and view.record and view.record.is_standing):
            await self._register(query.stream, qid, question, view.now)
        if not is_covered:
            has_scores = view.qid == qid and has_any_scores(view.snapshot)
            revisions = self._revisions(query, qid, question, reader)
            last = await self._cover(query.stream, qid, deadline, revisions, has_scores)
            stopwatch.lap("cover")
            view = await self._view(query.stream, qid)
        stopwatch.lap("read")
        if view.snapshot is None:
            raise RefusedError(f"the question on stream {query.stream!r} was ended: ask again")
        snapshot = await self._complete(query.stream, view, view.snapshot)
        return Subject(qid, question, snapshot, last)

    def _revisions(
        self, query: Query, qid: str, question: str, reader: Reader | None
    ) -> Revisions | None:
        """The revisions of a query; None if nobody wants any."""
        if reader is None or not (query.early and self.settings.first_answer_seconds):
            return None
        revise = partial(self._revise, query, qid, question, reader, time.perf_counter())
        return Revisions(self.pace, reader, revise)

    async def _revise(
        self,
        query: Query,
        qid: str,
        question: str,
        reader: Reader,
        started: float,
        revision: int,
        last: Draft | None,
    ) -> tuple[Draft, Answer] | None:
        """A draft from what is scored by now, and its answer; None if nothing was scored, or if the
        segments are those of the last draft."""
        stopwatch = Stopwatch(STEPS, started)
        stopwatch.lap("cover")
        view = await self._view(query.stream, qid)
        if view.snapshot is None or not has_any_scores(view.snapshot):
            return None
        if last and last.basis == basis_of(view.snapshot):
            return None
        snapshot = await self._complete(query.stream, view, view.snapshot)
        stopwatch.lap("read")
        began = time.perf_counter()
        best, tail = await self._on_model(partial(self._rank, snapshot, question))
        stopwatch.lap("tail")
        if same_segments([segment for segment, _ in best], last):
            return None
        subject, on_text = Subject(qid, question, snapshot), partial(reader.draft, revision)
        made = await self._compose(query, subject, best, tail, stopwatch, on_text)
        self.pace.observe(time.perf_counter() - began)
        return made

    async def _complete(self, stream: str, view: QueryView, snapshot: Snapshot) -> Snapshot:
        """With the segments that are not settled, which the view of a covered question has."""
        method = self.engine.method
        is_settled = method.measure not in SMOOTHED_MEASURES or not snapshot.scored_range.read
        if view.is_covered or is_settled:
            return snapshot
        return await self.store.with_unsettled(stream, view.qid, snapshot, method.k)

    async def _view(self, stream: str, qid: str) -> QueryView:
        return await self.store.query_view(stream, qid)

    def _id(self, question: str) -> str:
        return self.scorer.question_id(question)

    def _question(self, query: Query, view: QueryView) -> str:
        """The query's question, else the stream's standing one. Raises RefusedError if there is
        nothing to answer from or no question, and QuestionError if the question is too long."""
        stream = query.stream
        if view.state.cursor.version == 0:
            raise RefusedError(f"stream {stream!r} is unknown: `xl3m streams` lists all streams")
        if view.state.tail.end == 0:
            raise RefusedError(f"stream {stream!r} is empty")
        question = query.question or (view.record and view.record.question)
        if not question:
            raise RefusedError(f"stream {stream!r} has no standing question: ask one, or set one")
        self.engine.suffix(question)
        return question

    async def _register(self, stream: str, qid: str, question: str, now: float) -> None:
        """Register an ad hoc question, or renew its time to live; a standing one stays as it is.

        Its scores are kept for longer than any query may wait for them."""
        ttl = max(self.settings.adhoc_ttl_seconds, MAX_DEADLINE + EXPIRY_MARGIN)
        record = QuestionRecord(question, expires_at=now + ttl, set_at=now)
        limit = self.settings.max_adhoc_questions
        await self.store.questions.ask(stream, qid, record, most=limit)

    async def _cover(
        self,
        stream: str,
        qid: str,
        deadline: float,
        revisions: Revisions | None,
        has_scores: bool,
    ) -> Draft | None:
        """Wait until the range covers the log; deadline: by `time.monotonic()`. Returns the last
        revision's draft."""
        if revisions is None:
            await self.scorer.wait_until_covered(stream, qid, deadline)
            return None
        covering = asyncio.create_task(self.scorer.wait_until_covered(stream, qid, deadline))
        try:
            with suppress(RefusedError):  # the answer itself says why
                await revisions.run(covering, deadline, has_scores)
            await covering
            return revisions.last
        finally:
            covering.cancel()
            await asyncio.gather(covering, return_exceptions=True)

    def _rank(self, snapshot: Snapshot, question: str) -> tuple[Ranked, int]:
        """The k best segments of the snapshot and the tail, and the tail's size in segments; the
        tail is scored here."""
        tail = self.engine.segmenter().flush(snapshot.state.tail)
        features = self.engine.features([(segment.text, question) for segment in tail])
        scored = zip(tail, features, strict=True)
        rows = [(segment, row_of(segment, found, self.engine)) for segment, found in scored]
        return ranked(snapshot, self.engine.method.k, rows), len(tail)

    async def _generate(
        self, best: Ranked, question: str, on_text: OnText | None
    ) -> tuple[KeyContext, Generated]:
        loop = asyncio.get_running_loop()

        def forward(text: str) -> None:
            if on_text:
                loop.call_soon_threadsafe(on_text, text)

        def generate() -> tuple[KeyContext, Generated]:
            context = self.engine.assemble([segment for segment, _ in best], question)
            return context, self.engine.answer(context, question, forward)

        return await self._on_model(generate)

    async def _on_model(self, call: Callable[[], T]) -> T:
        """Run a call on the model. Whatever it raises is a refusal: a model that fails on one query
        must not end the worker. Out of memory is a RuntimeError, a position beyond the model's
        table an IndexError."""
        try:
            return await self.scorer.run_on_model(call)
        except Exception as error:
            logger.exception("the model failed on a query")
            raise RefusedError(f"the model failed: {error}") from error
