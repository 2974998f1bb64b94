"""Publishing answers through Redis pub/sub: one worker answers a query, and its text is streamed.

Revisions, pieces of the text and then the answer go to the query's channel. Publishing does not
wait for a Redis that is away: a client that missed the answer sends the query again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from stream_app.events import encode
from stream_app.queries.answering import Answering
from stream_app.queries.lease import QueryLease, QueryLeases
from stream_app.queries.replies import encode_reply
from stream_app.requests import Query
from stream_app.runtime.retry import TRANSIENT_ERRORS, is_transient, raise_if_cancelled
from stream_app.store.connection import RedisError
from stream_app.store.retrying import without_retry
from stream_app.store.store import StreamStore
from xl3m_core import Answer

ANSWER_TTL = 600
"""Seconds for which an answer is kept: a client that sends the query again gets it again."""
REFUSAL_TTL = 60
"""The same for a refusal, which needs no model if it is asked for again."""
RELEASE_SECONDS = 2.0
"""For the release of a lease when the worker stops; without it, the lease expires by itself."""
REPEAT_MS = 500
"""An answer is repeated at most once in this time, which is longer than the delay between the
workers that receive the query."""


class AnswerPublisher:
    """One per worker."""

    def __init__(self, store: StreamStore, answering: Answering) -> None:
        self.store = store
        self.leases = QueryLeases(store.leases)
        self.answering = answering
        self._impatient = without_retry(store)

    async def answer(self, query: Query) -> None:
        """Answer the query unless another worker does; publish again an answer that is there.

        Raises the error if Redis goes away meanwhile, and CancelledError if the worker stops. The
        query can then be sent again: Redis has its answer, or no lease of this worker.
        """
        lease = self.leases.of(query.id)
        try:
            if await lease.acquire():
                async with lease.renewed():
                    await self._answer(query, lease)
            elif lease.answer and await self.store.leases.may_repeat(query.id, REPEAT_MS):
                await self._publish(query.id, lease.answer)
        except asyncio.CancelledError:
            with suppress(TimeoutError):
                async with asyncio.timeout(RELEASE_SECONDS):
                    await lease.release()
            raise
        except TRANSIENT_ERRORS as error:
            if is_transient(error):
                await lease.release()
            raise

    async def reject(self, query: Query, reason: str) -> None:
        """Publish a refusal, from one worker only, and free the query's lease soon after."""
        if await self.leases.of(query.id).acquire(REPEAT_MS):
            answer = Answer(question=query.question or "", error=reason)
            self.answering.on_answer(answer, 0.0)
            reply = encode_reply(query, {"type": "answer"} | answer.to_dict())
            await self._publish(query.id, reply)

    async def refuse(self, query_id: str, reason: str, as_json: bool) -> None:
        """Publish why a message is not a query."""
        refusal = {"type": "answer", "id": query_id, "error": reason}
        await self._publish(query_id, encode(refusal, as_json))

    async def _answer(self, query: Query, lease: QueryLease) -> None:
        """Publish revisions and the text as they are generated, then the answer, which Redis keeps
        for a while. A revision leaves the lease as it is."""
        async with self._streamed(query, lease) as stream:
            answer = await self.answering.answer(query, stream.text, stream)
        reply = encode_reply(query, {"type": "answer"} | answer.to_dict())
        ttl = ANSWER_TTL if answer.error is None else REFUSAL_TTL
        if await lease.complete(reply, ttl):
            await self._publish(query.id, reply)

    @asynccontextmanager
    async def _streamed(self, query: Query, lease: QueryLease) -> "AsyncIterator[ReplyStream]":
        """What comes before the answer: all of it is published when the block ends."""
        stream = ReplyStream(query)
        streaming = asyncio.create_task(self._publish_all(stream, lease))
        try:
            yield stream
            stream.end()
            await streaming
        finally:
            streaming.cancel()
            await asyncio.gather(streaming, return_exceptions=True)

    async def _publish_all(self, stream: "ReplyStream", lease: QueryLease) -> None:
        """Publish messages while this worker has the lease. One that Redis does not take is lost: a
        client finds the whole text in the answer."""
        while (message := await stream.messages.get()) is not None:
            if not lease.held:
                continue
            with suppress(RedisError, OSError):
                listeners = await self._publish(stream.query.id, message)
                stream.listens = listeners > 0
            raise_if_cancelled()

    async def _publish(self, query_id: str, message: bytes) -> int:
        """Publish a message; returns how many clients received it."""
        channel = self.store.keys.answer_channel(query_id)
        return await self._impatient.publish([(channel, message)])


class ReplyStream:
    """The messages of one query before its answer, in their order; None is the last. listens:
    whether anyone received the last one."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.listens = True

    def text(self, text: str) -> None:
        """A piece of the answer's text."""
        self._put({"type": "text", "id": self.query.id, "text": text})

    def draft(self, revision: int, text: str) -> None:
        """A piece of a revision's text. Not in a field `text`, so that no client takes it for a
        piece of the answer's."""
        fields = {"id": self.query.id, "revision": revision, "piece": text}
        self._put({"type": "revision_text"} | fields)

    def revised(self, revision: int, answer: Answer) -> None:
        """A complete revision: the fields of an answer, which it is not."""
        fields = {"id": self.query.id, "stream": self.query.stream, "type": "revision"}
        self._put(fields | {"revision": revision, "final": False} | answer.to_dict())

    def end(self) -> None:
        """Nothing follows but the answer."""
        self.messages.put_nowait(None)

    def _put(self, fields: dict[str, Any]) -> None:
        self.messages.put_nowait(encode(fields, self.query.as_json))
