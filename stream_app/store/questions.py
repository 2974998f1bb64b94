"""QuestionStore: sets, replaces and ends the questions of streams, with their scores.

Every change is one atomic step on a stream's questions.
"""

import time
from collections.abc import Callable
from typing import Any

from stream_app.runtime.retry import Health
from stream_app.store import keys as layout
from stream_app.store.codec import (
    pack,
    to_cursor,
    to_pairs,
    to_question,
    to_range,
    to_seconds,
)
from stream_app.store.connection import AnyRedis, NoPermissionError
from stream_app.store.keys import Keys
from stream_app.store.partitions import Fence, check_fence
from stream_app.store.retrying import retried
from stream_app.store.scripts import Script
from stream_app.store.state import (
    NO_LIMIT,
    Cursor,
    FencedError,
    LimitError,
    QuestionRecord,
    ScoredRange,
    has_expired,
    too_many_questions,
)

TrackedRecord = tuple[QuestionRecord, ScoredRange | None]
"""A question and its scored range; None if it has none."""


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
        """The stream's questions by id, without those that have expired."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self.keys.questions(stream))
            pipe.time()
            fields, time_ = await pipe.execute(raise_on_error=False)
        if isinstance(fields, Exception):
            raise fields
        now, records = _seconds(time_), to_question(fields)
        return {qid: record for qid, record in records.items() if not has_expired(record, now)}

    @retried
    async def now(self) -> float:
        """Seconds since the epoch by Redis' clock, by which questions expire."""
        try:
            return _seconds(await self.redis.time())
        except NoPermissionError as error:
            return _seconds(error)

    @retried
    async def ask(
        self,
        stream: str,
        qid: str,
        record: QuestionRecord,
        *,
        keep: bool = True,
        most: int = NO_LIMIT,
        fence: Fence | None = None,
    ) -> None:
        """Add a question to the stream. Its range starts empty at the head, unless it has one.

        keep: whether the stream's other standing questions stay; if not, they end. most: the limit
        of questions of its kind: one more standing question raises LimitError, one more ad hoc
        question evicts the one asked least recently. fence: that of the partition which the
        question was read from; raises FencedError if the partition has a later owner."""
        k = self.keys
        names = [k.cursor(stream), k.questions(stream)]
        names += [name(stream, "") for name in (k.scored_range, k.top, k.text, k.all_rows)]
        names += [k.partition(fence[0])] if fence else []
        reply = await self._ask_question(
            names,
            qid=qid,
            record=_packed(record),
            keep=keep,
            limit=most,
            now=time.time(),
            block_size=layout.ROWS_PER_BLOCK,
            epoch=fence[1] if fence else None,
        )
        if reply["result"] == "fenced" and fence:
            raise FencedError.of(*fence)
        if reply["result"] == "full":
            raise LimitError(too_many_questions(most))

    @retried
    async def tracked(self, stream: str) -> tuple[Cursor, dict[str, TrackedRecord]]:
        """The stream's cursor, and its questions that have not expired with their ranges, in one
        round trip."""
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
    async def reissue(self, stream: str, qid: str, new_qid: str) -> None:
        """Reset a standing question under another id, unless it has been ended meanwhile."""

        def change(pipe: AnyRedis, known: dict[str, QuestionRecord], head: int) -> bool:
            if qid not in known or not known[qid].is_standing:
                return False
            self._delete(pipe, stream, qid, head)
            if new_qid not in known or not known[new_qid].is_standing:
                self._put(pipe, stream, new_qid, known[qid], head, head)
            return True

        await self._change(stream, change)

    @retried
    async def copy(self, stream: str, qid: str, new_qid: str, start: int) -> bool:
        """Give a standing question a second id, whose range starts empty at `start`, unless it has
        one. False if the question has been ended meanwhile."""
        is_known = False

        def change(pipe: AnyRedis, known: dict[str, QuestionRecord], head: int) -> bool:
            nonlocal is_known
            is_known = qid in known and known[qid].is_standing
            if is_known:
                self._put(pipe, stream, new_qid, known[qid], head, min(start, head))
            return is_known

        await self._change(stream, change)
        return is_known

    @retried
    async def end(self, stream: str, qid: str) -> None:
        """End one question of the stream."""

        def change(pipe: AnyRedis, known: dict[str, QuestionRecord], head: int) -> bool:
            self._delete(pipe, stream, qid, head)
            return qid in known

        await self._change(stream, change)

    @retried
    async def end_standing(self, stream: str, fence: Fence | None = None) -> None:
        """End every standing question of the stream. fence: as in `ask`."""

        def change(pipe: AnyRedis, known: dict[str, QuestionRecord], head: int) -> bool:
            standing = [qid for qid, record in known.items() if record.is_standing]
            for qid in standing:
                self._delete(pipe, stream, qid, head)
            return bool(standing)

        await self._change(stream, change, fence)

    async def _change(
        self,
        stream: str,
        change: Callable[[AnyRedis, dict[str, QuestionRecord], int], bool],
        fence: Fence | None = None,
    ) -> None:
        """Change the stream's questions in one transaction, which is repeated if another client
        changes them or the fence's partition meanwhile. `change` gets the transaction, the
        questions and the log's head, and returns whether it changed anything: if not, nothing is
        written, and no stream is created."""

        async def write(pipe: AnyRedis) -> None:
            if fence:
                await check_fence(pipe, self.keys, fence)
            known = to_question(await pipe.hgetall(self.keys.questions(stream)))
            head = int(await pipe.hget(self.keys.cursor(stream), "head") or 0)
            pipe.multi()
            if change(pipe, known, head):
                pipe.hincrby(self.keys.cursor(stream), "questions", 1)

        watched = [self.keys.partition(fence[0])] if fence else []
        await self.redis.transaction(write, self.keys.questions(stream), *watched)

    def _put(
        self, pipe: AnyRedis, stream: str, qid: str, record: QuestionRecord, head: int, start: int
    ) -> None:
        """Write a standing question, whose range starts empty at `start`; its rows do not
        expire."""
        for edge in ("lo", "hi"):
            pipe.hsetnx(self.keys.scored_range(stream, qid), edge, start)
        for name in self.keys.question_keys(stream, qid, head):
            pipe.persist(name)
        pipe.hset(self.keys.questions(stream), qid, _packed(record))

    def _delete(self, pipe: AnyRedis, stream: str, qid: str, head: int) -> None:
        pipe.hdel(self.keys.questions(stream), qid)
        pipe.unlink(*self.keys.question_keys(stream, qid, head))


def _seconds(reply: Any) -> float:
    """Seconds from the reply of TIME; this machine's time if the user may not call it."""
    if isinstance(reply, NoPermissionError):
        return time.time()
    if isinstance(reply, Exception):
        raise reply
    return to_seconds(reply)


def _packed(record: QuestionRecord) -> bytes:
    return pack((record.question, record.expires_at, record.set_at))
