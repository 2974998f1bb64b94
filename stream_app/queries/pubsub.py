"""The Redis pub/sub endpoint for queries, the one with the lowest latency.

Publish a query on `PREFIX:query`; the pieces of its text and then the answer arrive on
`PREFIX:answer:ID`. Every worker receives every query; the one that gets its lease answers. Pub/sub
is not durable: a client that missed the answer sends the query again with the same id, and gets the
same answer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from stream_app.errors import BadEvent
from stream_app.formats.text import is_empty, is_json
from stream_app.kafka.dead_letters import DeadLetterLog
from stream_app.queries.answering import Answering
from stream_app.queries.publisher import AnswerPublisher
from stream_app.queries.replies import MAX_CONCURRENT_QUERIES
from stream_app.requests import Query, decode_query, id_of
from stream_app.runtime.retry import TRANSIENT_ERRORS, Health, Retry, is_transient, reason
from stream_app.runtime.shutdown import Shutdown
from stream_app.settings import Settings
from stream_app.store.state import too_many_queries
from stream_app.store.store import StreamStore

logger = logging.getLogger("xl3m")

MAX_WAITING_QUERIES = 256
"""Queries that wait for their turn; the next one is rejected."""


class PubSubServer:
    """One per worker. waiting: the queries that wait for their turn. on_skipped: called for each
    empty message."""

    def __init__(
        self,
        settings: Settings,
        store: StreamStore,
        answering: Answering,
        health: Health,
        shutdown: Shutdown,
        *,
        log: DeadLetterLog | None = None,
        on_skipped: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.publisher = AnswerPublisher(store, answering)
        self.health = health
        self.shutdown = shutdown
        self.log = log or DeadLetterLog()
        self.on_skipped = on_skipped
        self.turns = asyncio.Semaphore(MAX_CONCURRENT_QUERIES)
        self.waiting: dict[Query, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Receive queries, and subscribe again whenever the connection to Redis was lost."""
        async with asyncio.TaskGroup() as tasks:
            with self.health.track("pubsub") as retry:
                while True:
                    try:
                        await self._listen(tasks, retry)
                    except TRANSIENT_ERRORS as error:
                        await retry.back_off(error)

    async def _listen(self, tasks: asyncio.TaskGroup, retry: Retry) -> None:
        async with aclosing(self.store.listen(self.store.keys.query_channel())) as messages:
            async for message in messages:
                if message is None:
                    retry.succeeded()
                else:
                    await self._guarded(self._receive, message["data"], tasks)

    async def _guarded(self, step: Callable[..., Awaitable[None]], *args: Any) -> None:
        """A query that fails because Redis is away does not end the endpoint."""
        try:
            await step(*args)
        except TRANSIENT_ERRORS as error:
            if not is_transient(error):
                raise
            logger.error(
                "a pub/sub query was lost, its client may send it again: %s", reason(error)
            )

    async def _receive(self, data: bytes, tasks: asyncio.TaskGroup) -> None:
        """Queue a query for its turn, or refuse it. Refusals are sent one by one, so that a flood
        of bad messages waits in Redis and not here."""
        if is_empty(data):
            self.on_skipped()
            return
        settings = self.settings
        try:
            query = decode_query(None, data, settings.max_event_bytes, encoding=settings.encoding)
        except BadEvent as error:
            await self._refuse(data, str(error))
            return
        if len(self.waiting) >= MAX_WAITING_QUERIES:
            await self._drop_leased()
        if len(self.waiting) >= MAX_WAITING_QUERIES:
            await self.publisher.reject(query, too_many_queries(MAX_WAITING_QUERIES))
        elif query not in self.waiting:
            self.waiting[query] = tasks.create_task(self._guarded(self._wait_and_answer, query))

    async def _wait_and_answer(self, query: Query) -> None:
        async with self.turns:
            await self.shutdown.wait_unless_stopping()
            del self.waiting[query]
            self.shutdown.query_started()
            try:
                await self.publisher.answer(query)
            finally:
                self.shutdown.query_finished()

    async def _drop_leased(self) -> None:
        """Drop the waiting queries that other workers answer, or have answered."""
        waiting = list(self.waiting)
        taken = await self.store.leases.are_taken([query.id for query in waiting])
        for query, is_taken in zip(waiting, taken, strict=True):
            if is_taken and query in self.waiting:
                self.waiting.pop(query).cancel()

    async def _refuse(self, data: bytes, why: str) -> None:
        """Tell the client why its message is not a query, if the message has an id to reply to."""
        self.log.note("pub/sub", "a query through pub/sub was refused", why)
        if query_id := id_of(data, self.settings.max_event_bytes):
            await self.publisher.refuse(query_id, why, is_json(data))
