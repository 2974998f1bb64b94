"""The queries topic: answers several queries at once, and acknowledges them in order.

Thin: decoding is in `requests`, answering in `answering`. Depends on neither Redis nor a model.
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
from stream_app.requests import Query, decode_query, sender_of
from stream_app.runtime.shutdown import Shutdown
from stream_app.settings import Settings
from stream_app.settings.variables import variable
from xl3m_core import Answer

logger = logging.getLogger("xl3m")

MAX_CONCURRENT_QUERIES = 16
# A query that lay in its topic longer than this is of nobody who still waits: a new group, or one
# whose offsets ran out, finds all that were ever sent. Producers' clocks may be wrong by as much.
OLD_SECONDS = 3600.0


class QueriesAgent:
    """Events of the queries topic: several are answered at once, acknowledged in order."""

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
        """Begin each query as it comes, acknowledge it when all before it are answered."""
        begun: asyncio.Queue[tuple[Event, asyncio.Task[None]]] = asyncio.Queue(
            MAX_CONCURRENT_QUERIES
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._acknowledge(begun))
            async for event in events:
                await self.shutdown.wait_unless_stopping()
                self.shutdown.query_started()
                await begun.put((event, tasks.create_task(self._answer(event))))

    async def _acknowledge(self, begun: "asyncio.Queue[tuple[Event, asyncio.Task[None]]]") -> None:
        while True:
            event, answered = await begun.get()
            await answered
            event.ack()
            self.shutdown.query_finished()

    async def _answer(self, event: Event) -> None:
        m, settings = event.message, self.settings
        if is_empty(m):
            return
        if is_empty_value(m.value) and not unreadable_reason(m):
            self.on_skipped()
            return
        fallback = f"{m.topic}/{m.partition}/{m.offset}"
        try:
            check_readable(m)
            query = decode_query(
                m.key, m.value, settings.max_event_bytes, fallback, settings.encoding
            )
        except BadEvent as error:
            await self.dead_letter(event, str(error))
            await self._refuse(m, str(error))
            return
        self._missing_key.check(m)
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

    async def _refuse(self, message: Message, reason: str) -> None:
        """Whoever can be made out as the asker should not wait for an answer."""
        sender = sender_of(message.key, message.value, self.settings.max_event_bytes)
        if sender.id:
            refusal = {"id": sender.id, "stream": sender.stream or None, "error": reason}
            key = sender.stream.encode() or None
            await self.send(key, encode(refusal, is_json(message.value)))


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
