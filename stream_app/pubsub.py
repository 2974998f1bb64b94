"""Query over stream through Redis pub/sub: the low-latency door.

Publish a query on `xl3m:query`; its text comes piece by piece, and then the answer, on
`xl3m:answer:ID`. Every worker hears every query; the one that claims it answers. Pub/sub
keeps nothing: who hears no answer asks again with the same id, and gets the same one.
"""

import asyncio
import logging
from typing import Any

from redis.asyncio import Redis

from stream_app import keys
from stream_app.agents import answered
from stream_app.answering import Answering
from stream_app.events import BadEvent, Query, decode_query, encode, id_of, is_json
from stream_app.patience import PASSING, Health
from stream_app.scoring import Scoring
from stream_app.settings import Settings
from stream_app.stopping import Stopping

logger = logging.getLogger("xl3m")

QUERIES_AT_ONCE = 16
# A claim outlives the deadline by this much, for generating. After that a query whose worker died
# may be asked again.
CLAIM_SLACK = 60
# How long an answer can be had again by asking with the same id.
ANSWER_TTL = 600
# An answer is repeated at most once in this time, which is longer than workers differ in hearing.
REPEAT_MS = 500
CLAIMED = b"claimed"


class PubSubDoor:
    """One per worker."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        answering: Answering,
        scoring: Scoring,
        health: Health,
        stopping: Stopping,
    ) -> None:
        self.settings = settings
        self.redis: Any = redis
        self.answering = answering
        self.scoring = scoring
        self.health = health
        self.stopping = stopping
        self.places = asyncio.Semaphore(QUERIES_AT_ONCE)

    async def run(self) -> None:
        """Listen, and listen again when Redis was away."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    await self._listen(tasks)
                except PASSING as error:
                    self.health.waiting["pubsub"] = str(error)
                    logger.error("the pub/sub door waits for Redis: %s", error)
                    await asyncio.sleep(1.0)

    async def _listen(self, tasks: asyncio.TaskGroup) -> None:
        async with self.redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(keys.QUERY_CHANNEL, keys.QUESTION_CHANNEL)
            self.health.waiting.pop("pubsub", None)
            # What was said while nobody listened is lost: look at every stream's questions again.
            for stream in list(self.scoring.streams.watched):
                self.scoring.streams.changed(stream)
            async for message in pubsub.listen():
                if message["channel"].decode() == keys.QUESTION_CHANNEL:
                    self.scoring.streams.changed(message["data"].decode(errors="replace"))
                else:
                    tasks.create_task(self._guarded(message["data"]))

    async def _guarded(self, data: bytes) -> None:
        """One query must not end the door for the others."""
        try:
            async with self.places:
                await self.stopping.admit()
                self.stopping.begun()
                try:
                    await self._query(data)
                finally:
                    self.stopping.finished()
        except PASSING as error:
            logger.error("a query through pub/sub is lost, its asker may ask again: %s", error)

    async def _query(self, data: bytes) -> None:
        try:
            query = decode_query(None, data, self.settings.max_event_bytes)
        except BadEvent as error:
            await self._refuse(data, str(error))
            return
        if await self._claim(query):
            try:
                await self._answer(query)
            except PASSING:
                await self.redis.delete(keys.claim(query.id))
                raise

    async def _refuse(self, data: bytes, reason: str) -> None:
        """Tell the asker, if it can be told from the message who that is."""
        logger.warning("a query through pub/sub was refused: %s", reason)
        if query_id := id_of(data, self.settings.max_event_bytes):
            refusal = {"type": "answer", "id": query_id, "error": reason}
            await self._publish(query_id, encode(refusal, is_json(data)))

    async def _claim(self, query: Query) -> bool:
        """True for one worker only; an answer that is already there is published again."""
        deadline = self.settings.query_deadline if query.deadline is None else query.deadline
        lease = int(deadline) + CLAIM_SLACK
        if await self.redis.set(keys.claim(query.id), CLAIMED, nx=True, ex=lease):
            return True
        answer = await self.redis.get(keys.claim(query.id))
        if answer not in (None, CLAIMED) and await self._first_to_repeat(query):
            await self._publish(query.id, answer)
        return False

    async def _first_to_repeat(self, query: Query) -> bool:
        """All workers hear who asks again; one repeats the answer."""
        name = keys.repeated(query.id)
        return bool(await self.redis.set(name, CLAIMED, nx=True, px=REPEAT_MS))

    async def _answer(self, query: Query) -> None:
        """Publish the text as it comes, then the answer, and keep that for who asks again."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        speaking = asyncio.create_task(self._speak(query, pieces))
        answer = await self.answering.answer(query, pieces.put_nowait)
        pieces.put_nowait(None)
        await speaking
        final = answered(query, {"type": "answer"} | answer.to_dict())
        await self.redis.set(keys.claim(query.id), final, ex=ANSWER_TTL)
        await self._publish(query.id, final)

    async def _speak(self, query: Query, pieces: "asyncio.Queue[str | None]") -> None:
        while (text := await pieces.get()) is not None:
            piece = {"type": "text", "id": query.id, "text": text}
            await self._publish(query.id, encode(piece, query.as_json))

    async def _publish(self, query_id: str, message: bytes) -> None:
        await self.redis.publish(keys.answer_channel(query_id), message)
