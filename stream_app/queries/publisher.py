"""Publishing answers through Redis pub/sub: one worker answers a query, and its text is streamed.

Pieces of the text and then the answer go to the query's channel. Publishing does not wait for a
Redis that is away: a client that missed the answer sends the query again.
"""

import asyncio
from contextlib import suppress

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
        """Publish the text as it is generated, then the answer, which Redis keeps for a while."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        streaming = asyncio.create_task(self._stream_text(query, lease, pieces))
        try:
            answer = await self.answering.answer(query, pieces.put_nowait)
            pieces.put_nowait(None)
            await streaming
        finally:
            streaming.cancel()
            await asyncio.gather(streaming, return_exceptions=True)
        reply = encode_reply(query, {"type": "answer"} | answer.to_dict())
        ttl = ANSWER_TTL if answer.error is None else REFUSAL_TTL
        if await lease.complete(reply, ttl):
            await self._publish(query.id, reply)

    async def _stream_text(
        self, query: Query, lease: QueryLease, pieces: "asyncio.Queue[str | None]"
    ) -> None:
        """Publish pieces while this worker has the lease and Redis answers: a client that missed
        some finds the whole text in the answer."""
        with suppress(RedisError, OSError):
            while (text := await pieces.get()) is not None:
                piece = {"type": "text", "id": query.id, "text": text}
                if lease.held:
                    await self._publish(query.id, encode(piece, query.as_json))
                    raise_if_cancelled()

    async def _publish(self, query_id: str, message: bytes) -> None:
        channel = self.store.keys.answer_channel(query_id)
        await self._impatient.publish([(channel, message)])
