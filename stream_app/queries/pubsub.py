"""Query over stream through Redis pub/sub: the low-latency door.

Publish a query on `PREFIX:query`; its text comes piece by piece, and then the answer, on
`PREFIX:answer:ID`. Every worker hears every query; the one that claims it answers. Pub/sub
keeps nothing: who hears no answer asks again with the same id, and gets the same one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from stream_app.errors import BadEvent
from stream_app.events import encode
from stream_app.formats.text import is_empty, is_json
from stream_app.kafka.dead_letters import DeadLetterLog
from stream_app.queries.answering import Answering
from stream_app.queries.kafka import MAX_CONCURRENT_QUERIES, answered
from stream_app.queries.lease import LEASED, QueryLease, QueryLeases
from stream_app.requests import Query, decode_query, id_of
from stream_app.runtime.retry import (
    TRANSIENT_ERRORS,
    Health,
    Retry,
    is_transient,
    raise_if_cancelled,
    reason,
    retry_forever,
)
from stream_app.runtime.shutdown import Shutdown
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.store.keys import Keys
from stream_app.store.limits import too_many_queries
from stream_app.store.subscription import messages
from xl3m_core import Answer

logger = logging.getLogger("xl3m")

# So many wait for a place; the next is refused.
QUERIES_WAITING = 256
# How long an answer can be had again by asking with the same id.
ANSWER_TTL = 600
REFUSAL_TTL = 60  # costs nobody any work to give again
# An answer is repeated at most once in this time, which is longer than workers differ in hearing.
REPEAT_MS = 500


class PubSubServer:
    """One per worker."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        answering: Answering,
        scoring: Scorer,
        health: Health,
        stopping: Shutdown,
        *,
        log: DeadLetterLog | None = None,
        on_skipped: Callable[[], None] = lambda: None,
        on_listening: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self.settings = settings
        self.redis: Any = redis
        self.keys = Keys(settings.prefix)
        self.claims = QueryLeases(redis, self.keys)
        self.answering = answering
        self.scoring = scoring
        self.health = health
        self.stopping = stopping
        self.places = asyncio.Semaphore(MAX_CONCURRENT_QUERIES)
        self.waiting: dict[Query, asyncio.Task[None]] = {}
        self.log = log or DeadLetterLog()
        self.on_skipped, self.on_listening = on_skipped, on_listening

    async def run(self) -> None:
        """Listen, and listen again when Redis was away."""
        async with asyncio.TaskGroup() as tasks:
            with self.health.track("pubsub") as retry:
                while True:
                    try:
                        await self._listen(tasks, retry)
                    except TRANSIENT_ERRORS as error:
                        await retry.back_off(error)

    async def _listen(self, tasks: asyncio.TaskGroup, retry: Retry) -> None:
        channels = self.keys.query_channel(), self.keys.question_channel()
        async with aclosing(messages(self.redis, *channels)) as heard:
            async for message in heard:
                if message is None:
                    await self._look_again()
                    retry.succeeded()
                elif message["channel"].decode() == self.keys.question_channel():
                    await self._changed(message["data"].decode(errors="replace"))
                else:
                    await self._guarded(self._take, message["data"], tasks)

    async def _look_again(self) -> None:
        """A Redis that was started again breaks the connection, and may have lost something. What
        was said while nobody listened is lost: each stream's questions may be others."""
        for look in self.on_listening:
            await look()
        for stream in list(self.scoring.streams.tracked):
            self.scoring.streams.on_questions_changed(stream)

    async def _changed(self, stream: str) -> None:
        """Look at the stream's questions again, or, if none is named, at what Redis has of this
        worker's partitions: `xl3m rebuild` may have set them back."""
        self.scoring.streams.on_questions_changed(stream)
        for look in () if stream else self.on_listening:
            await look()

    async def _guarded(self, step: Callable[..., Awaitable[None]], *args: Any) -> None:
        """One query must not end the door for the others."""
        try:
            await step(*args)
        except TRANSIENT_ERRORS as error:
            if not is_transient(error):
                raise
            why = reason(error)
            logger.error("a query through pub/sub is lost, its asker may ask again: %s", why)

    async def _take(self, data: bytes, tasks: asyncio.TaskGroup) -> None:
        """Let a query wait for its place, if it is one and as many may wait: nothing is kept of it
        before. Refusals are sent one by one, so that more of them wait in Redis and not here."""
        if is_empty(data):
            self.on_skipped()
            return
        settings = self.settings
        try:
            query = decode_query(None, data, settings.max_event_bytes, encoding=settings.encoding)
        except BadEvent as error:
            await self._refuse(data, str(error))
            return
        if len(self.waiting) >= QUERIES_WAITING:
            await self._drop_claimed()
        if len(self.waiting) >= QUERIES_WAITING:
            await self._reject(query)
        elif query not in self.waiting:
            self.waiting[query] = tasks.create_task(self._guarded(self._wait, query))

    async def _wait(self, query: Query) -> None:
        async with self.places:
            await self.stopping.wait_unless_stopping()
            del self.waiting[query]
            self.stopping.query_started()
            try:
                await self._query(query)
            finally:
                self.stopping.query_finished()

    async def _query(self, query: Query) -> None:
        """Answer it, if no other worker does; an answer that is already there is published again.

        If Redis goes away meanwhile the query can be asked again: what is there then is its answer,
        or no claim of this worker's.
        """
        claim = self.claims.of(query.id)
        try:
            if await claim.take():
                async with claim.renewed():
                    await self._answer(query, claim)
            elif claim.answer and await self._first_to_repeat(query):
                await self._publish(query.id, claim.answer)
        except TRANSIENT_ERRORS as error:
            if not is_transient(error):
                raise
            await retry_forever(self.health, "claim", claim.release)
            raise

    async def _drop_claimed(self) -> None:
        """Those that others answer, or have answered, wait here for nothing: let them go."""
        waiting = list(self.waiting)
        async with self.redis.pipeline(transaction=False) as pipe:
            for query in waiting:
                pipe.exists(self.keys.lease(query.id))
            claimed = await pipe.execute()
        for query, is_claimed in zip(waiting, claimed, strict=True):
            if is_claimed and query in self.waiting:
                self.waiting.pop(query).cancel()

    async def _reject(self, query: Query) -> None:
        """Of workers that are all full one says so."""
        if await self.claims.of(query.id).take(REPEAT_MS):
            reason = too_many_queries(QUERIES_WAITING)
            refusal = Answer(question=query.question or "", error=reason)
            self.answering.on_answer(refusal, 0.0)
            fields = {"type": "answer"} | refusal.to_dict()
            await self._publish(query.id, answered(query, fields))

    async def _refuse(self, data: bytes, reason: str) -> None:
        """Tell the asker, if it can be told from the message who that is."""
        self.log.note("pub/sub", "a query through pub/sub was refused", reason)
        if query_id := id_of(data, self.settings.max_event_bytes):
            refusal = {"type": "answer", "id": query_id, "error": reason}
            await self._publish(query_id, encode(refusal, is_json(data)))

    async def _first_to_repeat(self, query: Query) -> bool:
        """All workers hear who asks again; one repeats the answer."""
        name = self.keys.repeated(query.id)
        return bool(await self.redis.set(name, LEASED, nx=True, px=REPEAT_MS))

    async def _answer(self, query: Query, claim: QueryLease) -> None:
        """Publish the text as it comes, then the answer, and keep that for who asks again."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        speaking = asyncio.create_task(self._stream_text(query, claim, pieces))
        try:
            answer = await self.answering.answer(query, pieces.put_nowait)
            pieces.put_nowait(None)
            await speaking
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
        final = answered(query, {"type": "answer"} | answer.to_dict())
        seconds = ANSWER_TTL if answer.error is None else REFUSAL_TTL
        if await retry_forever(self.health, "claim", claim.complete, final, seconds):
            await self._publish(query.id, final)

    async def _stream_text(
        self, query: Query, claim: QueryLease, pieces: "asyncio.Queue[str | None]"
    ) -> None:
        """While the claim is ours, and as long as Redis takes it: the answer has all of it."""
        with suppress(RedisError, OSError):
            while (text := await pieces.get()) is not None:
                piece = {"type": "text", "id": query.id, "text": text}
                if claim.mine:
                    await self._publish(query.id, encode(piece, query.as_json))
                    raise_if_cancelled()

    async def _publish(self, query_id: str, message: bytes) -> None:
        await self.redis.publish(self.keys.answer_channel(query_id), message)
