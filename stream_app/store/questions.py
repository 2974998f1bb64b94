"""Asking: the questions of streams in Redis, set, replaced and ended with all that they own.

Every change is one transaction on the stream's questions. Knows Redis; not how a question is
scored, nor who asks it.
"""

import time
from collections.abc import Callable
from typing import Any

from stream_app.runtime.retry import Health
from stream_app.store import keys as layout
from stream_app.store.codec import pack
from stream_app.store.connection import AnyRedis, NoPermissionError
from stream_app.store.keys import Keys
from stream_app.store.limits import LimitError, too_many_questions
from stream_app.store.partitions import Fence, check_fence
from stream_app.store.replies import to_cursor, to_pairs, to_question, to_range, to_seconds
from stream_app.store.retrying import retried
from stream_app.store.scripts import Script
from stream_app.store.state import (
    NO_LIMIT,
    Cursor,
    FencedError,
    QuestionRecord,
    ScoredRange,
    has_expired,
)

TrackedRecord = tuple[QuestionRecord, ScoredRange | None]
"""A question and what of the log is scored for it."""


class QuestionStore:
    """The questions of all streams. health: see `retrying`."""

    def __init__(self, redis: AnyRedis, keys: Keys, health: Health | None = None) -> None:
        self.redis = redis
        self.keys = keys
        self.health = health
        self._ask_question = Script(redis, "ask_question.lua")
        self._read_questions = Script(redis, "read_questions.lua")

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

        k = self.keys
        names = [k.cursor(stream), k.questions(stream)]
        names += [name(stream, "") for name in (k.scored_range, k.top, k.text, k.all_scores)]
        record = pack((asked.question, asked.expires_at, asked.set_at))
        args = [qid, record, int(keep), most, time.time(), layout.SCORES_PER_BLOCK]
        if fence:
            names.append(k.partition(fence[0]))
            args.append(fence[1])
        reply = await self._ask_question(names, args)
        if reply == -1 and fence:
            raise FencedError.of(*fence)
        if reply == -2:
            raise LimitError(too_many_questions(most))

    @retried
    async def tracked(self, stream: str) -> tuple[Cursor, dict[str, TrackedRecord]]:
        """Where the stream stands, and its questions that have not expired with their ranges, in
        one round trip."""
        k = self.keys
        names = [k.cursor(stream), k.questions(stream), k.scored_range(stream, "")]
        time_, cursor, questions, ranges = await self._read_questions(names)
        now, records = to_seconds(time_), to_question(to_pairs(questions))
        tracked = {
            qid: (record, to_range(to_pairs(scored)))
            for (qid, record), scored in zip(records.items(), ranges, strict=True)
            if not has_expired(record, now)
        }
        return to_cursor(to_pairs(cursor)), tracked

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
