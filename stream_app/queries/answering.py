"""Answering: a query -> an answer that says what it rests on.

Makes sure the question has a range, waits until it covers the log or the deadline, reads
everything in one round trip, scores the tail on the spot, splices, generates. Knows
streams and questions; not which door the query came through.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from stream_app.queries.prefetch import PromptPrefetcher
from stream_app.requests import Query
from stream_app.runtime.retry import Health, retry_forever
from stream_app.scoring.scorer import Scorer
from stream_app.settings import MAX_DEADLINE, Settings
from stream_app.store.state import QuestionRecord, Snapshot, current_question
from stream_app.store.store import StreamStore
from xl3m_core import Answer, Engine, Evidence, Generated, KeyContext, QuestionError, Segment, TopK

logger = logging.getLogger("xl3m")
OnText = Callable[[str], None]
T = TypeVar("T")


class RefusedError(Exception):
    """There is no answer; the message is what the asker is told."""


class Answering:
    """One per worker; as many queries at once as are asked."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        store: StreamStore,
        scoring: Scorer,
        warming: PromptPrefetcher,
        health: Health,
        *,
        on_answer: Callable[[Answer, float], None] = lambda answer, seconds: None,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.store = store
        self.scorer = scoring
        self.prefetcher = warming
        self.health = health
        self.on_answer = on_answer

    async def answer(self, query: Query, on_text: OnText | None = None) -> Answer:
        """The answer, or one with `error` and the reason. on_text gets the text as it comes."""
        began = time.perf_counter()
        try:
            answer = await self._answer(query, on_text)
        except (RefusedError, QuestionError) as error:
            answer = Answer(question=query.question or "", error=str(error))
        self.on_answer(answer, time.perf_counter() - began)
        return answer

    async def _answer(self, query: Query, on_text: OnText | None) -> Answer:
        clock = Stopwatch()
        deadline = (
            self.settings.query_deadline_seconds if query.deadline is None else query.deadline
        )
        until = time.monotonic() + deadline
        question, qid = await retry_forever(self.health, "query", self._question, query)
        await retry_forever(
            self.health, "query", self.scorer.wait_until_covered, query.stream, qid, until
        )
        clock.lap("cover")
        view = await retry_forever(self.health, "query", self.store.snapshot, query.stream, qid)
        if view is None:
            raise RefusedError(
                f"the question was ended on stream {query.stream!r} meanwhile: ask again"
            )
        clock.lap("read")
        ranked, tail = await self._on_model(lambda: self._rank(view, question))
        clock.lap("tail")
        context, generated = await self._generate(ranked, question, on_text)
        clock.lap("generate")
        self.prefetcher.asked(query.stream, qid, question)
        scores = {segment.index: score for segment, score in ranked}
        return Answer(
            question=question,
            answer=generated.text,
            certainty=generated.certainty,
            coverage=view.coverage(tail),
            as_of=view.state.cursor.next,
            evidence=tuple(Evidence.of(query.stream, s, scores[s.index]) for s in context.segments),
            timings=clock.laps,
        )

    async def _question(self, query: Query) -> tuple[str, str]:
        """The question's text and id. One that is not current gets a range with a time to live."""
        stream = query.stream
        state = await self.store.load(stream)
        if state.cursor.version == 0:
            raise RefusedError(
                f"nothing is known of a stream {stream!r}: `xl3m streams` lists them"
            )
        if state.tail.end == 0:
            raise RefusedError(f"stream {stream!r} is empty")
        question = query.question or current_question(await self.store.questions(stream))
        if question is None:
            raise RefusedError(f"stream {stream!r} has no current question: ask one, or set one")
        self.engine.suffix(question)
        qid, now = self.scorer.question_id(question), await self.store.now()
        kept = max(
            self.settings.adhoc_ttl_seconds, MAX_DEADLINE
        )  # as long as any query may need it
        asked = QuestionRecord(question, now + kept, now)
        await self.store.ask(stream, qid, asked, most=self.settings.max_adhoc_questions)
        return question, qid

    def _rank(self, view: Snapshot, question: str) -> tuple[list[tuple[Segment, float]], int]:
        """The best of the top-k and of the tail, the most certain first; the tail's size."""
        tail = self.engine.segmenter().flush(view.state.tail)
        scores = self.engine.score([(segment.text, question) for segment in tail])
        found = {segment.index: (segment, score) for segment, score in view.top}
        found |= {s.index: (s, score) for s, score in zip(tail, scores, strict=True)}
        top = TopK(self.engine.method.k)
        for segment, score in found.values():
            top.add(segment.index, score)
        return [found[index] for index, _ in top.best()], len(tail)

    async def _generate(
        self, ranked: list[tuple[Segment, float]], question: str, on_text: OnText | None
    ) -> tuple[KeyContext, Generated]:
        loop = asyncio.get_running_loop()

        def hand_over(text: str) -> None:
            if on_text:
                loop.call_soon_threadsafe(on_text, text)

        def generate() -> tuple[KeyContext, Generated]:
            context = self.engine.assemble([segment for segment, _ in ranked], question)
            return context, self.engine.answer(context, question, hand_over)

        return await self._on_model(generate)

    async def _on_model(self, call: Callable[[], T]) -> T:
        """A model that fails on one query must not end the worker, whatever it raises: out of
        memory it is a RuntimeError, beyond its table of places an IndexError."""
        try:
            return await self.scorer.on_model(call)
        except Exception as error:
            logger.exception("the model failed on a query")
            raise RefusedError(f"the model failed: {error}") from error


class Stopwatch:
    """Seconds by step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        """The step that ends now."""
        now = time.perf_counter()
        self.laps[step] = round(now - self._last, 6)
        self._last = now
