"""The Faust agents: tokens, questions, queries. Thin: each hands its events on.

None uses Faust's own acknowledgements: an event is acknowledged by us, when what it asks
for is done, and in the order of offsets. Knows Faust; no Redis, no model.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import faust

from stream_app import keys
from stream_app.answering import Answering
from stream_app.asking import Fence
from stream_app.errors import BadEvent
from stream_app.events import (
    STREAM_BYTES,
    Query,
    Question,
    dead_letter,
    decode_query,
    decode_question,
    encode,
)
from stream_app.limits import FullError, too_many_streams
from stream_app.partitions import Owned, Partitions
from stream_app.patience import Health, patiently
from stream_app.scoring import Scoring
from stream_app.settings import Settings
from stream_app.state import Asked, RestartedError
from stream_app.stopping import Stopping
from xl3m_core import QuestionError

logger = logging.getLogger("xl3m")

QUERIES_AT_ONCE = 16

Send = Callable[[bytes | None, bytes], Awaitable[None]]


def sender(topic: Any) -> Send:
    """Sends to a topic and returns when the broker has it."""

    async def send(key: bytes | None, value: bytes) -> None:
        await (await topic.send(key=key, value=value))

    return send


def dead_letters(
    send: Send, on_burial: Callable[[], None] = lambda: None
) -> Callable[[Any, str], Awaitable[None]]:
    """Puts an event that cannot be used where a person can look at it."""

    async def bury(event: Any, reason: str) -> None:
        m = event.message
        logger.warning("%s/%d offset %d: %s", m.topic, m.partition, m.offset, reason)
        # The event's key keeps its dead letters in order, unless the key itself is what is wrong.
        key = m.key if m.key and len(m.key) <= STREAM_BYTES else None
        await send(key, dead_letter(m.topic, m.partition, m.offset, m.key, m.value, reason))
        on_burial()

    return bury


def agent(
    app: faust.App, topic: Any, handle: Callable[[AsyncIterator[Any]], Awaitable[None]]
) -> None:
    """An agent that leaves acknowledging to `handle`."""

    async def run(stream: Any) -> None:
        await handle(stream.noack().events())

    app.agent(topic, name=topic.get_topic_name())(run)


class Questions:
    """Events of the questions topic: set, add or end a stream's current questions."""

    def __init__(
        self,
        settings: Settings,
        partitions: Partitions,
        scoring: Scoring,
        bury: Any,
        health: Health,
    ) -> None:
        self.settings = settings
        self.partitions = partitions
        self.store = partitions.store
        self.scoring = scoring
        self.bury = bury
        self.health = health

    async def run(self, events: AsyncIterator[Any]) -> None:
        """Take them one by one: do what one asks for, note that it is done, acknowledge it. What
        Redis has noted is done; what Redis lost is delivered again at the next assignment."""
        async for event in events:
            owned = self.partitions.of(event.message)
            if owned is None:
                continue
            owned.saw(event.message.offset)
            owned.take_gap()  # said in the log; no stream counts it
            while not owned.has(event.message.offset) and self.partitions.owns(owned):
                await self._take(owned, event)
                await self._note(owned, event)
            if self.partitions.owns(owned):
                event.ack()

    async def _note(self, owned: Owned, event: Any) -> None:
        """Move the position behind the event, or find out that Redis was started again and may have
        lost what it asked for."""
        if not self.partitions.owns(owned):
            return
        try:
            done = [(owned, event)]
            await patiently(self.health, "questions", self.partitions.advance, done)
        except RestartedError:
            logger.warning("Redis was started again: seeing what it holds")
            await patiently(self.health, "questions", self.partitions.trust)

    async def _take(self, owned: Owned, event: Any) -> None:
        """Do what it asks for, or bury it."""
        message = event.message
        try:
            asked = decode_question(message.key, message.value, self.settings.max_event_bytes)
        except BadEvent as error:
            await self.bury(event, str(error))
            return
        try:
            if asked.question is not None:
                self.scoring.engine.suffix(asked.question)
            await patiently(self.health, "questions", self._set, asked, owned.fence)
        except (QuestionError, FullError) as error:
            await self.bury(event, str(error))
            await patiently(self.health, "questions", self._tell, asked, str(error))

    async def _tell(self, asked: Question, error: str) -> None:
        """Whoever watches the stream should not wait for a question that was refused."""
        refusal = {"stream": asked.stream, "question": asked.question, "error": error}
        await self.store.redis.publish(keys.update_channel(asked.stream), encode(refusal))

    async def _set(self, asked: Question, fence: Fence) -> None:
        if asked.question is None:
            await self.store.end_questions(asked.stream, fence=fence)
        else:
            await self._ask(asked.stream, asked.question, asked.add, fence)
        self.scoring.streams.changed(asked.stream)
        # The stream's tokens may be another worker's to score: let all of them know.
        await self.store.redis.publish(keys.QUESTION_CHANNEL, asked.stream.encode())

    async def _ask(self, stream: str, question: str, add: bool, fence: Fence) -> None:
        """A stream may be asked before anything is read of it, and counts from then on."""
        most = self.settings.max_streams
        if await self.store.enlist([(stream, "")], most):
            raise FullError(too_many_streams(stream, most))
        qid, now = self.scoring.question_id(question), Asked(question, set_at=time.time())
        most = self.settings.max_questions
        await self.store.ask(stream, qid, now, keep=add, most=most, fence=fence)


class Queries:
    """Events of the queries topic: several are answered at once, acknowledged in order."""

    def __init__(
        self, settings: Settings, answering: Answering, send: Send, bury: Any, stopping: Stopping
    ) -> None:
        self.settings = settings
        self.answering = answering
        self.stopping = stopping
        self.send = send
        self.bury = bury

    async def run(self, events: AsyncIterator[Any]) -> None:
        """Begin each query as it comes, acknowledge it when all before it are answered."""
        begun: asyncio.Queue[tuple[Any, asyncio.Task[None]]] = asyncio.Queue(QUERIES_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._acknowledge(begun))
            async for event in events:
                await self.stopping.admit()
                self.stopping.begun()
                await begun.put((event, tasks.create_task(self._answer(event))))

    async def _acknowledge(self, begun: "asyncio.Queue[tuple[Any, asyncio.Task[None]]]") -> None:
        while True:
            event, answered = await begun.get()
            await answered
            event.ack()
            self.stopping.finished()

    async def _answer(self, event: Any) -> None:
        m = event.message
        fallback = f"{m.topic}/{m.partition}/{m.offset}"
        try:
            query = decode_query(m.key, m.value, self.settings.max_event_bytes, fallback)
        except BadEvent as error:
            await self.bury(event, str(error))
            return
        answer = await self.answering.answer(query)
        await self.send(query.stream.encode(), answered(query, answer.to_dict()))


def answered(query: Query, answer: dict[str, Any]) -> bytes:
    """The answer as an event, in the form the query came in."""
    return encode({"id": query.id, "stream": query.stream} | answer, query.as_json)
