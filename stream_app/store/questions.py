"""Asking: the questions of streams in Redis, set, replaced and ended with all that they own.

Every change is one transaction on the stream's questions. Knows Redis; not how a question is
scored, nor who asks it.
"""

import time
from collections.abc import Callable
from typing import Any

from stream_app.runtime.retry import Health
from stream_app.store.codec import pack
from stream_app.store.connection import AnyRedis, NoPermissionError
from stream_app.store.keys import Keys
from stream_app.store.partitions import Fence, check_fence
from stream_app.store.replies import to_question
from stream_app.store.retrying import retried
from stream_app.store.state import NO_LIMIT, QuestionRecord, evicted_questions, has_expired


class QuestionStore:
    """The questions of all streams. health: see `retrying`."""

    def __init__(self, redis: AnyRedis, keys: Keys, health: Health | None = None) -> None:
        self.redis = redis
        self.keys = keys
        self.health = health

    @retried
    async def load(self, stream: str) -> dict[str, QuestionRecord]:
        """The stream's questions by id, without those whose time is over."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self.keys.questions(stream))
            pipe.time()
            fields, time_ = await pipe.execute(raise_on_error=False)
        if isinstance(fields, Exception):
            raise fields
        now = _seconds(time_)
        return {
            qid: asked for qid, asked in to_question(fields).items() if not has_expired(asked, now)
        }

    @retried
    async def now(self) -> float:
        """Seconds since the epoch by Redis' clock, which is the one that questions go by."""
        return await _now(self.redis)

    @retried
    async def ask(
        self,
        stream: str,
        qid: str,
        asked: QuestionRecord,
        *,
        keep: bool = True,
        most: int = NO_LIMIT,
        fence: Fence | None = None,
    ) -> None:
        """Give the stream a question. Its range starts empty at the head, unless it has one.

        keep: leave the stream's other current questions; else they end. most: so many of its kind
        there may be. One more that is current raises FullError; one more that is asked once takes
        the place of the one that nobody asked for the longest time. fence: of the partition that
        the question came from; raises FencedError if that has a later owner.
        """

        def change(pipe: Any, known: dict[str, QuestionRecord], head: int, now: float) -> bool:
            if asked.expires_at and qid in known and not known[qid].expires_at:
                return False
            for other in evicted_questions(known, qid, asked, keep, most, now):
                self._forget(pipe, stream, other, head)
            self._put(pipe, stream, qid, asked, head)
            return True

        await self._change(stream, change, fence)

    @retried
    async def reissue(self, stream: str, qid: str, mine: str) -> None:
        """Begin a current question anew under another id; not one that has been ended meanwhile."""

        def change(pipe: Any, known: dict[str, QuestionRecord], head: int, _: float) -> bool:
            if qid not in known or known[qid].expires_at:
                return False
            self._forget(pipe, stream, qid, head)
            if mine not in known or known[mine].expires_at:
                self._put(pipe, stream, mine, known[qid], head)
            return True

        await self._change(stream, change)

    @retried
    async def end_standing(self, stream: str, fence: Fence | None = None) -> None:
        """End every current question of the stream. fence: as in `ask`."""

        def change(pipe: Any, known: dict[str, QuestionRecord], head: int, _: float) -> bool:
            ended = [qid for qid, asked in known.items() if not asked.expires_at]
            for qid in ended:
                self._forget(pipe, stream, qid, head)
            return bool(ended)

        await self._change(stream, change, fence)

    async def _change(
        self,
        stream: str,
        change: Callable[[Any, dict[str, QuestionRecord], int, float], bool],
        fence: Fence | None = None,
    ) -> None:
        """Give `change` the questions, the head of the log and the time, and do all it asks for at
        once; again if the questions, or the owner of the fence's partition, are others by then. It
        says whether anything is another: else a stream that nobody knows would be there."""

        async def write(pipe: Any) -> None:
            if fence:
                await check_fence(pipe, self.keys, fence)
            known = to_question(await pipe.hgetall(self.keys.questions(stream)))
            head = int(await pipe.hget(self.keys.cursor(stream), "head") or 0)
            now = await _now(pipe)
            pipe.multi()
            if change(pipe, known, head, now):
                pipe.hincrby(self.keys.cursor(stream), "questions", 1)

        watched = [self.keys.partition(fence[0])] if fence else []
        await self.redis.transaction(write, self.keys.questions(stream), *watched)

    def _put(self, pipe: Any, stream: str, qid: str, asked: QuestionRecord, head: int) -> None:
        for edge in ("lo", "hi"):
            pipe.hsetnx(self.keys.scored_range(stream, qid), edge, head)
        for name in self.keys.question_keys(stream, qid, head):
            pipe.expireat(name, int(asked.expires_at)) if asked.expires_at else pipe.persist(name)
        fields = pack((asked.question, asked.expires_at, asked.set_at))
        pipe.hset(self.keys.questions(stream), qid, fields)

    def _forget(self, pipe: Any, stream: str, qid: str, head: int) -> None:
        pipe.hdel(self.keys.questions(stream), qid)
        pipe.unlink(*self.keys.question_keys(stream, qid, head))


async def _now(redis: Any) -> float:
    try:
        return _seconds(await redis.time())
    except NoPermissionError as error:
        return _seconds(error)


def _seconds(reply: Any) -> float:
    """What Redis says the time is; this machine's, where we have no right to ask."""
    if isinstance(reply, NoPermissionError):
        return time.time()
    if isinstance(reply, Exception):
        raise reply
    seconds, microseconds = reply
    return float(seconds + microseconds / 1e6)
