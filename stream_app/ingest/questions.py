"""The questions topic: sets, adds and ends the standing questions of streams.

Events are handled one by one and acknowledged in order, each when Redis holds what it asks for.
"""

import logging
from collections.abc import AsyncIterator

from stream_app.errors import BadEvent
from stream_app.events import encode
from stream_app.ingest.owned_partition import OwnedPartition
from stream_app.ingest.partitions import Assignment
from stream_app.kafka.dead_letters import DeadLetter
from stream_app.kafka.missing_keys import MissingKeyWarning
from stream_app.kafka.records import Event, check_readable, first_offset, is_empty
from stream_app.requests import Question, Sender, decode_question, sender_of
from stream_app.scoring.scorer import Scorer, update_message
from stream_app.settings import Settings
from stream_app.store.partitions import Fence
from stream_app.store.state import LimitError, QuestionRecord, RestartedError, too_many_streams
from xl3m_core import QuestionError

logger = logging.getLogger("xl3m")


class QuestionsAgent:
    """One per worker: the writer of the standing questions of the partitions that it owns."""

    def __init__(
        self,
        settings: Settings,
        assignment: Assignment,
        scorer: Scorer,
        dead_letter: DeadLetter,
    ) -> None:
        self.settings = settings
        self.assignment = assignment
        self.store = assignment.store
        self.scorer = scorer
        self.dead_letter = dead_letter
        self._missing_key = MissingKeyWarning()

    async def run(self, events: AsyncIterator[Event]) -> None:
        """Handle each event, note its position in Redis, acknowledge it. If Redis loses writes,
        the events are redelivered at the next assignment."""
        async for event in events:
            message = event.message
            owned = self.assignment.of(message)
            if owned is None:
                continue
            owned.observe(message.offset, first_offset(message))
            owned.pop_missing()  # only logged: no stream counts them
            while not owned.has(message.offset) and self.assignment.owns(owned):
                await self._handle(owned, event)
                await self._advance(owned, event)
            if self.assignment.owns(owned):
                event.ack()

    async def _advance(self, owned: OwnedPartition, event: Event) -> None:
        """Move the position after the event. If Redis was restarted, its effect may be lost: then
        the position stays."""
        if not self.assignment.owns(owned):
            return
        try:
            done = [(owned, event)]
            await self.assignment.advance(done)
        except RestartedError:
            logger.warning("Redis was restarted: checking what it holds")
            await self.assignment.trust()

    async def _handle(self, owned: OwnedPartition, event: Event) -> None:
        """Change the stream's questions, or write a dead letter."""
        m, settings = event.message, self.settings
        if is_empty(m):
            return
        try:
            check_readable(m)
            question = decode_question(m.key, m.value, settings.max_event_bytes, settings.encoding)
        except BadEvent as error:
            await self.dead_letter(event, str(error))
            sender = sender_of(m.key, m.value, settings.max_event_bytes)
            if sender.stream:
                await self._reject(sender, str(error))
            return
        self._missing_key.check(m)
        try:
            if question.question is not None:
                self.scorer.engine.suffix(question.question)
            await self._apply(question, owned.fence)
        except (QuestionError, LimitError) as error:
            await self.dead_letter(event, str(error))
            await self._reject(question, str(error))

    async def _reject(self, question: Question | Sender, error: str) -> None:
        """Notify subscribers of the stream that the question was rejected."""
        message = {"stream": question.stream, "question": question.question, "error": error}
        channel = self.store.keys.update_channel(question.stream)
        await self.store.publish([(channel, encode(message))])

    async def _apply(self, question: Question, fence: Fence) -> None:
        if question.question is None:
            await self.store.questions.end_standing(question.stream, fence=fence)
        else:
            await self._set(question.stream, question.question, question.add, fence)
        self.scorer.streams.on_questions_changed(question.stream)
        # Another worker may own the stream's tokens and score them: notify all workers.
        channel = self.store.keys.question_channel()
        await self.store.publish([(channel, question.stream.encode())])

    async def _set(self, stream: str, question: str, add: bool, fence: Fence) -> None:
        """Set or add a question. The stream need not have any events yet; it counts towards the
        limit of streams from now on."""
        if await self.store.register_streams([(stream, "")], self.settings.max_streams):
            raise LimitError(too_many_streams(stream, self.settings.max_streams))
        qid, now = self.scorer.question_id(question), await self.store.questions.now()
        record = QuestionRecord(question, set_at=now)
        limit = self.settings.max_standing_questions
        await self.store.questions.ask(stream, qid, record, keep=add, most=limit, fence=fence)
        await self._publish_range(stream, question, qid)

    async def _publish_range(self, stream: str, question: str, qid: str) -> None:
        """Publish the range of a question that is scored already. Its top-k does not change now,
        and subscribers of the stream would wait for the next change."""
        if scored := await self.store.scored_range(stream, qid):
            message = update_message(stream, question, qid, scored.lo, scored.hi)
            await self.store.publish([(self.store.keys.update_channel(stream), message)])
