"""The queries topic: answers several queries at once, and acknowledges them in order.

Decoding is in `requests`, answering in `answering`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

from aiokafka.errors import MessageSizeTooLargeError

from stream_app.errors import BadEvent
from stream_app.events import encode
from stream_app.formats.text import is_empty as is_empty_value
from stream_app.formats.text import is_json
from stream_app.kafka.dead_letters import DeadLetter, Send
from stream_app.kafka.missing_keys import MissingKeyWarning
from stream_app.kafka.records import Event, Message, check_readable, is_empty, unreadable_reason
from stream_app.queries.answering import Answering
from stream_app.queries.replies import MAX_CONCURRENT_QUERIES, encode_reply, without_texts
from stream_app.requests import Query, decode_query, sender_of
from stream_app.runtime.shutdown import Shutdown
from stream_app.settings import Settings
from stream_app.settings.variables import variable
from xl3m_core import Answer

logger = logging.getLogger("xl3m")

MAX_AGE_SECONDS = 3600.0
"""Older queries are not answered, since nobody waits for them: a new group, or one whose offsets
expired, receives all queries that the topic still has. Clocks of producers may be as wrong."""


class QueriesAgent:
    """One per worker. on_skipped: called for each event without a value."""

    def __init__(
        self,
        settings: Settings,
        answering: Answering,
        send: Send,
        dead_letter: DeadLetter,
        shutdown: Shutdown,
        *,
        on_skipped: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.answering = answering
        self.shutdown = shutdown
        self.send = send
        self.dead_letter = dead_letter
        self.on_skipped = on_skipped
        self._missing_key = MissingKeyWarning()

    async def run(self, events: AsyncIterator[Event]) -> None:
        """Start each query as it arrives; acknowledge it once all before it are answered."""
        started: asyncio.Queue[tuple[Event, asyncio.Task[None]]] = asyncio.Queue(
            MAX_CONCURRENT_QUERIES
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._acknowledge(started))
            async for event in events:
                await self.shutdown.wait_unless_stopping()
                self.shutdown.query_started()
                await started.put((event, tasks.create_task(self._answer(event))))

    async def _acknowledge(
        self, started: "asyncio.Queue[tuple[Event, asyncio.Task[None]]]"
    ) -> None:
        while True:
            event, answering = await started.get()
            await answering
            event.ack()
            self.shutdown.query_finished()

    async def _answer(self, event: Event) -> None:
        message = event.message
        if is_empty(message):
            return
        if is_empty_value(message.value) and not unreadable_reason(message):
            self.on_skipped()
            return
        try:
            query = self._decode(message)
        except BadEvent as error:
            await self.dead_letter(event, str(error))
            await self._refuse(message, str(error))
            return
        self._missing_key.check(message)
        if expired := too_old(message.timestamp, query.deadline or 0.0, time.time()):
            answer = Answer(question=query.question or "", error=expired)
            self.answering.on_answer(answer, 0.0)
        else:
            answer = await self.answering.answer(query)
        await self._send(query, answer.to_dict())

    def _decode(self, message: Message) -> Query:
        """The query; without an id it gets TOPIC/PARTITION/OFFSET as its id. Raises BadEvent."""
        check_readable(message)
        place = f"{message.topic}/{message.partition}/{message.offset}"
        limit, encoding = self.settings.max_event_bytes, self.settings.encoding
        return decode_query(message.key, message.value, limit, place, encoding)

    async def _send(self, query: Query, answer: dict[str, Any]) -> None:
        """Send the answer, without the texts of its evidence if it is too large for the topic."""
        key = query.stream.encode()
        try:
            await self.send(key, encode_reply(query, answer))
        except MessageSizeTooLargeError as error:
            logger.warning(
                "the answer to query %r is too large for topic %s (%s): it is sent without the "
                "texts of its evidence. Raise max.message.bytes of the topic, or lower %s.",
                query.id, self.settings.answers_topic, error, variable("k"),
            )  # fmt: skip
            await self.send(key, encode_reply(query, without_texts(answer)))

    async def _refuse(self, message: Message, reason: str) -> None:
        """Tell the sender why there is no answer, if the message names an id to reply to."""
        sender = sender_of(message.key, message.value, self.settings.max_event_bytes)
        if sender.id:
            refusal = {"id": sender.id, "stream": sender.stream or None, "error": reason}
            key = sender.stream.encode() or None
            await self.send(key, encode(refusal, is_json(message.value)))


def too_old(timestamp: float | None, deadline: float, now: float) -> str:
    """Why a query is too old to be answered; empty if it is not. Times in seconds since the epoch.
    A query without a timestamp, or with one in the future, is not too old."""
    if timestamp is None or timestamp < 0 or now - timestamp <= MAX_AGE_SECONDS + deadline:
        return ""
    asked_at = datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="seconds")
    return f"asked at {asked_at}: too old, more than {MAX_AGE_SECONDS / 60:.0f} minutes; ask again"
