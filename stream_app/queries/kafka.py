"""The Faust agents: tokens, questions, queries. Thin: each hands its events on.

None uses Faust's own acknowledgements: an event is acknowledged by us, when what it asks
for is done, and in the order of offsets. Knows Faust; no Redis, no model.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import faust
from aiokafka.errors import MessageSizeTooLargeError

from stream_app.errors import BadEvent
from stream_app.events import encode
from stream_app.formats.text import is_empty, is_json
from stream_app.ingest.partitions import Assignment, OwnedPartition
from stream_app.kafka import polled
from stream_app.kafka.dead_letters import Send
from stream_app.queries.answering import Answering
from stream_app.requests import (
    Query,
    Question,
    Sender,
    decode_query,
    decode_question,
    sender_of,
)
from stream_app.runtime.retry import Health, retry_forever
from stream_app.runtime.shutdown import Shutdown
from stream_app.scoring.scorer import Scorer, update_message
from stream_app.settings import Settings
from stream_app.settings.variables import variable
from stream_app.store.limits import LimitError, too_many_streams
from stream_app.store.questions import Fence
from stream_app.store.state import QuestionRecord, RestartedError
from xl3m_core import Answer, QuestionError

logger = logging.getLogger("xl3m")

MAX_CONCURRENT_QUERIES = 16
# A query that lay in its topic longer than this is of nobody who still waits: a new group, or one
# whose offsets ran out, finds all that were ever sent. Producers' clocks may be wrong by as much.
OLD_SECONDS = 3600.0


def sender(topic: Any) -> Send:
    """Sends to a topic and returns when the broker has it."""

    async def send(key: bytes | None, value: bytes) -> None:
        await (await topic.send(key=key, value=value))

    return send


def agent(
    app: faust.App,
    topic: Any,
    handle: Callable[[AsyncIterator[Any]], Awaitable[None]],
    name: str = "tokens",
) -> None:
    """An agent that leaves acknowledging to `handle`."""

    async def run(stream: Any) -> None:
        await handle(stream.noack().events())

    app.agent(topic, name=name)(run)


def check_readable(message: Any) -> None:
    """Raise BadEvent with the reason if what came from Kafka could not be read there already."""
    if reason := polled.unreadable(message):
        raise BadEvent(reason)


class QuestionsAgent:
    """Events of the questions topic: set, add or end a stream's current questions."""

    def __init__(
        self,
        settings: Settings,
        partitions: Assignment,
        scoring: Scorer,
        bury: Any,
        health: Health,
    ) -> None:
        self.settings = settings
        self.partitions = partitions
        self.store = partitions.store
        self.scoring = scoring
        self.bury = bury
        self.health = health
        self._keyless = _Keyless()

    async def run(self, events: AsyncIterator[Any]) -> None:
        """Take them one by one: do what one asks for, note that it is done, acknowledge it. What
        Redis has noted is done; what Redis lost is delivered again at the next assignment."""
        async for event in events:
            owned = self.partitions.of(event.message)
            if owned is None:
                continue
            owned.observe(event.message.offset, polled.begins(event.message))
            owned.take_gap()  # said in the log; no stream counts it
            while not owned.has(event.message.offset) and self.partitions.owns(owned):
                await self._take(owned, event)
                await self._note(owned, event)
            if self.partitions.owns(owned):
                event.ack()

    async def _note(self, owned: OwnedPartition, event: Any) -> None:
        """Move the position behind the event, or find out that Redis was started again and may have
        lost what it asked for."""
        if not self.partitions.owns(owned):
            return
        try:
            done = [(owned, event)]
            await retry_forever(self.health, "questions", self.partitions.advance, done)
        except RestartedError:
            logger.warning("Redis was started again: seeing what it holds")
            await retry_forever(self.health, "questions", self.partitions.trust)

    async def _take(self, owned: OwnedPartition, event: Any) -> None:
        """Do what it asks for, or bury it."""
        m, settings = event.message, self.settings
        if polled.is_empty(m):
            return
        try:
            check_readable(m)
            asked = decode_question(m.key, m.value, settings.max_event_bytes, settings.encoding)
        except BadEvent as error:
            await self.bury(event, str(error))
            sender = sender_of(m.key, m.value, settings.max_event_bytes)
            if sender.stream:
                await retry_forever(self.health, "questions", self._tell, sender, str(error))
            return
        self._keyless.warn(m)
        try:
            if asked.question is not None:
                self.scoring.engine.suffix(asked.question)
            await retry_forever(self.health, "questions", self._set, asked, owned.fence)
        except (QuestionError, LimitError) as error:
            await self.bury(event, str(error))
            await retry_forever(self.health, "questions", self._tell, asked, str(error))

    async def _tell(self, asked: Question | Sender, error: str) -> None:
        """Whoever watches the stream should not wait for a question that was refused."""
        refusal = {"stream": asked.stream, "question": asked.question, "error": error}
        await self.store.redis.publish(
            self.store.keys.update_channel(asked.stream), encode(refusal)
        )

    async def _set(self, asked: Question, fence: Fence) -> None:
        if asked.question is None:
            await self.store.end_questions(asked.stream, fence=fence)
        else:
            await self._ask(asked.stream, asked.question, asked.add, fence)
        self.scoring.streams.on_questions_changed(asked.stream)
        # The stream's tokens may be another worker's to score: let all of them know.
        await self.store.redis.publish(self.store.keys.question_channel(), asked.stream.encode())

    async def _ask(self, stream: str, question: str, add: bool, fence: Fence) -> None:
        """A stream may be asked before anything is read of it, and counts from then on."""
        most = self.settings.max_streams
        if await self.store.register_streams([(stream, "")], most):
            raise LimitError(too_many_streams(stream, most))
        qid, now = self.scoring.question_id(question), await self.store.now()
        most = self.settings.max_standing_questions
        asked = QuestionRecord(question, set_at=now)
        await self.store.ask(stream, qid, asked, keep=add, most=most, fence=fence)
        await self._tell_range(stream, question, qid)

    async def _tell_range(self, stream: str, question: str, qid: str) -> None:
        """A question that was asked before may be scored already: no top-k changes then, and those
        who watch the stream would wait for the next one that does."""
        if scored := await self.store.scored_range(stream, qid):
            message = update_message(stream, question, qid, scored.lo, scored.hi)
            await self.store.publish([(self.store.keys.update_channel(stream), message)])


class QueriesAgent:
    """Events of the queries topic: several are answered at once, acknowledged in order."""

    def __init__(
        self, settings: Settings, answering: Answering, send: Send, bury: Any, stopping: Shutdown
    ) -> None:
        self.settings = settings
        self.answering = answering
        self.stopping = stopping
        self.send = send
        self.bury = bury
        self.on_skipped: Callable[[], None] = lambda: None
        self._keyless = _Keyless()

    async def run(self, events: AsyncIterator[Any]) -> None:
        """Begin each query as it comes, acknowledge it when all before it are answered."""
        begun: asyncio.Queue[tuple[Any, asyncio.Task[None]]] = asyncio.Queue(MAX_CONCURRENT_QUERIES)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._acknowledge(begun))
            async for event in events:
                await self.stopping.wait_unless_stopping()
                self.stopping.query_started()
                await begun.put((event, tasks.create_task(self._answer(event))))

    async def _acknowledge(self, begun: "asyncio.Queue[tuple[Any, asyncio.Task[None]]]") -> None:
        while True:
            event, answered = await begun.get()
            await answered
            event.ack()
            self.stopping.query_finished()

    async def _answer(self, event: Any) -> None:
        m, settings = event.message, self.settings
        if polled.is_empty(m):
            return
        if is_empty(m.value) and not polled.unreadable(m):
            self.on_skipped()
            return
        fallback = f"{m.topic}/{m.partition}/{m.offset}"
        try:
            check_readable(m)
            query = decode_query(
                m.key, m.value, settings.max_event_bytes, fallback, settings.encoding
            )
        except BadEvent as error:
            await self.bury(event, str(error))
            await self._refuse(m, str(error))
            return
        self._keyless.warn(m)
        if old := too_old(m.timestamp, query.deadline or 0.0, time.time()):
            answer = Answer(question=query.question or "", error=old)
            self.answering.on_answer(answer, 0.0)
        else:
            answer = await self.answering.answer(query)
        await self._send(query, answer.to_dict())

    async def _send(self, query: Query, answer: dict[str, Any]) -> None:
        """An answer larger than its topic takes goes without the texts of its evidence."""
        key = query.stream.encode()
        try:
            await self.send(key, answered(query, answer))
        except MessageSizeTooLargeError as error:
            logger.warning(
                "the answer to query %r is larger than topic %s takes (%s): it is sent without the "
                "texts of its evidence. Raise max.message.bytes of the topic, or lower %s.",
                query.id, self.settings.answers_topic, error, variable("k"),
            )  # fmt: skip
            await self.send(key, answered(query, without_texts(answer)))

    async def _refuse(self, message: Any, reason: str) -> None:
        """Whoever can be made out as the asker should not wait for an answer."""
        sender = sender_of(message.key, message.value, self.settings.max_event_bytes)
        if sender.id:
            refusal = {"id": sender.id, "stream": sender.stream or None, "error": reason}
            key = sender.stream.encode() or None
            await self.send(key, encode(refusal, is_json(message.value)))


class _Keyless:
    """Says once that requests come without a key: of one stream they may lie in any partition."""

    def __init__(self) -> None:
        self.is_said = False

    def warn(self, message: Any) -> None:
        """Of a request that named its stream in a field."""
        if not message.key and not self.is_said:
            self.is_said = True
            logger.warning(
                "%s/%d offset %d names its stream in a field and has no key: what is asked of one "
                "stream may lie in several partitions and be done in another order, a question be "
                "ended before it is set. Give such events the stream's name as their key.",
                message.topic, message.partition, message.offset,
            )  # fmt: skip


def too_old(timestamp: float | None, deadline: float, now: float) -> str:
    """Why a query sent then is not looked at now; nothing if it is. Faust says it in seconds. A
    query without a time is never too old, nor is one from a clock that goes ahead."""
    if timestamp is None or timestamp < 0 or now - timestamp <= OLD_SECONDS + deadline:
        return ""
    asked = datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="seconds")
    return f"asked at {asked}: too old, more than {OLD_SECONDS / 60:.0f} minutes; ask again"


def without_texts(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, `truncated`: its evidence says where it lies, and no more."""
    evidence = [each | {"text": ""} for each in answer["evidence"]]
    return answer | {"evidence": evidence, "truncated": True}


def answered(query: Query, answer: dict[str, Any]) -> bytes:
    """The answer as an event, in the form the query came in."""
    return encode({"id": query.id, "stream": query.stream} | answer, query.as_json)
