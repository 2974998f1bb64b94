"""Answering: turns a query into an answer that says what it rests on.

The top-k, the tail and the question are read in one round trip. If the question's range covers the
log, generation follows at once. Otherwise the question is registered, the scorer extends its range
until it covers the log or the deadline is over, and all is read again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from stream_app.queries.prefetch import PromptPrefetcher
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


class RefusedError(Exception):
    """The query has no answer; the message is for its sender."""


class Subject(NamedTuple):
    """What a query asks, and all that the answer rests on."""

    qid: str
    question: str
    snapshot: Snapshot


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

    async def answer(self, query: Query, on_text: OnText | None = None) -> Answer:
        """The answer, or one with `error` set to the reason. on_text gets the text as it is
        generated."""
        started = time.perf_counter()
        try:
            answer = await self._answer(query, on_text)
        except (RefusedError, QuestionError) as error:
            answer = Answer(question=query.question or "", error=str(error))
        self.on_answer(answer, time.perf_counter() - started)
        return answer

    async def _answer(self, query: Query, on_text: OnText | None) -> Answer:
        stopwatch = Stopwatch(STEPS)
        qid, question, snapshot = await self._read(query, stopwatch)
        best, tail = await self._on_model(lambda: self._rank(snapshot, question))
        stopwatch.lap("tail")
        context, generated = await self._generate(best, question, on_text)
        stopwatch.lap("generate")
        self.prefetcher.note_query(query.stream, qid, question)
        scores = {segment.index: score for segment, score in best}
        return Answer(
            question=question,
            answer=generated.text,
            certainty=generated.certainty,
            coverage=snapshot.coverage(tail),
            as_of=snapshot.state.cursor.next,
            evidence=tuple(Evidence.of(query.stream, s, scores[s.index]) for s in context.segments),
            timings=stopwatch.laps,
        )

    async def _read(self, query: Query, stopwatch: "Stopwatch") -> Subject:
        """The question and its top-k, once its range covers the log or the deadline is over.

        Round trips to Redis: one for a covered standing question, two for a covered ad hoc
        question, whose time to live is renewed; else four, without those of the scorer.
        """
        limit = self.settings.query_deadline_seconds if query.deadline is None else query.deadline
        deadline = time.monotonic() + limit
        view = await self._view(query.stream, (query.question and self._id(query.question)) or "")
        question = self._question(query, view)
        qid = self._id(question)
        is_covered = view.qid == qid and view.is_covered
        if not (is_covered and view.record and view.record.is_standing):
            await self._register(query.stream, qid, question, view.now)
        if not is_covered:
            await self._cover(query.stream, qid, deadline)
            stopwatch.lap("cover")
            view = await self._view(query.stream, qid)
        stopwatch.lap("read")
        if view.snapshot is None:
            raise RefusedError(f"the question on stream {query.stream!r} was ended: ask again")
        return Subject(qid, question, await self._complete(query.stream, view, view.snapshot))

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

    async def _cover(self, stream: str, qid: str, deadline: float) -> None:
        """Wait until the range covers the log; deadline: by `time.monotonic()`."""
        await self.scorer.wait_until_covered(stream, qid, deadline)

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


class Stopwatch:
    """Seconds by step; 0 for a step that was left out."""

    def __init__(self, steps: Iterable[str]) -> None:
        self.laps = dict.fromkeys(steps, 0.0)
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        """The step ends now; it began when the last one ended."""
        now = time.perf_counter()
        self.laps[step] = round(now - self._last, 6)
        self._last = now
