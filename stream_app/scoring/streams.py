"""StreamRegistry: the streams this worker scores, kept as they stand in Redis.

A stream is tracked while this worker owns its partition, or a query waits for it here.
`QuestionLoader` reads their questions, `Totals` sums up what the owned ones have unscored.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from stream_app.scoring.jobs import TrackedQuestion, TrackedStream
from stream_app.scoring.reranking import rank_again
from stream_app.store.keys import have_same_rows, question_id
from stream_app.store.questions import TrackedRecord
from stream_app.store.state import Cursor, LostWritesError, QuestionRecord
from stream_app.store.store import StreamStore
from xl3m_core import QuestionError

if TYPE_CHECKING:
    from xl3m_core import Engine

logger = logging.getLogger("xl3m")

LOADS_AT_ONCE = 64


class StreamTotals(NamedTuple):
    """The totals of one stream. lag: segments of its live edge that are unscored for its standing
    questions, summed over them; unread: the same of all that is retained; coverage: the lowest of
    these questions (NaN without a question or without a segment)."""

    lag: int
    unread: int
    missing_offsets: int
    coverage: float


NOTHING = StreamTotals(0, 0, 0, math.nan)


class Totals:
    """Sums over all owned streams, updated as each of them changes.

    There may be ten thousand streams, and the lag is read at every batch: summing it up each time
    would be slow.
    """

    def __init__(self) -> None:
        self.by_stream: dict[str, StreamTotals] = {}
        self.lag = 0
        self.unread = 0
        self.missing_offsets = 0

    def update(self, stream: str, tracked: TrackedStream | None) -> None:
        """Count the stream as it is now; None, or one that is not owned, no longer counts."""
        old = self.by_stream.pop(stream, NOTHING)
        new = NOTHING
        if tracked and tracked.owned:
            new = self.by_stream[stream] = stream_totals(tracked)
        self.lag += new.lag - old.lag
        self.unread += new.unread - old.unread
        self.missing_offsets += new.missing_offsets - old.missing_offsets

    def coverage(self) -> float:
        """The least coverage of all streams; NaN if there is none."""
        shares = [t.coverage for t in self.by_stream.values() if not math.isnan(t.coverage)]
        return min(shares, default=math.nan)


def stream_totals(tracked: TrackedStream) -> StreamTotals:
    """The sums over one stream's standing questions."""
    head = tracked.cursor.head
    questions = tracked.standing_questions()
    shares = [question.scored_range.coverage(head) for question in questions] if head else []
    unread = [question.unread(tracked.cursor) for question in questions]
    lag = sum(live for live, _ in unread)
    history = sum(before for _, before in unread)
    least = min(shares, default=math.nan)
    return StreamTotals(lag, lag + history, tracked.cursor.gaps, least)


class QuestionLoader:
    """Picks from a stream's questions those that this worker's model can score.

    Rows belong to one model, and their scores to one measure and one k: the question's id names
    all of them.
    """

    def __init__(self, engine: "Engine", store: StreamStore) -> None:
        self.engine = engine
        self.store = store

    async def load(
        self, stream: str, owned: bool, records: Mapping[str, TrackedRecord]
    ) -> dict[str, TrackedQuestion]:
        """The questions that this worker's model can score, with their ranges.

        records: as Redis has them. owned: reissue those that another model scored, and read all
        of them again.
        """
        if owned and (foreign := self._foreign(records)):
            for qid, record in foreign.items():
                await self._reissue(stream, qid, record)
            _, records = await self.store.questions.tracked(stream)
        return {
            qid: TrackedQuestion(stream, qid, record, scored)
            for qid, (record, scored) in records.items()
            if scored and qid == self.question_id(record.question) and self._fits(record)
        }

    def _foreign(self, records: Mapping[str, TrackedRecord]) -> dict[str, QuestionRecord]:
        """The standing questions that another model has scored, or another measure or k ranked."""
        return {
            qid: record
            for qid, (record, _) in records.items()
            if record.is_standing
            and qid != self.question_id(record.question)
            and self._fits(record)
        }

    async def _reissue(self, stream: str, qid: str, record: QuestionRecord) -> None:
        """Give the question the id that it has for this worker's model, measure and k. Rows of this
        model stay, ranked anew; those of another one are deleted."""
        new_qid, question = self.question_id(record.question), record.question[:80]
        if have_same_rows(qid, new_qid):
            kept = await rank_again(self.store, self.engine, stream, qid, new_qid)
            logger.info(
                "stream %r: %r was ranked by another measure or k: %s of its segments are ranked "
                "anew without the model", stream, question, kept,
            )  # fmt: skip
            return
        logger.warning(
            "stream %r: %r was scored by another model: it is scored again", stream, question
        )
        await self.store.questions.reissue(stream, qid, new_qid)

    def _fits(self, record: QuestionRecord) -> bool:
        """Whether the question fits the window of this worker's model."""
        try:
            self.engine.suffix(record.question)
        except QuestionError as error:
            logger.error("question %r is not scored: %s", record.question[:80], error)
            return False
        return True

    def question_id(self, question: str) -> str:
        """The question's id for this worker's model, its prompt template, the measure and k."""
        model, method = self.engine.model, self.engine.method
        ranked_by = (method.measure, str(method.k))
        return question_id(question, model.fingerprint, model.template, ranked_by=ranked_by)


class StreamRegistry:
    """tracked: streams by their names. lagging: those with a standing question that is behind, next
    one first. stale: those to be read again. wake: called when there may be something to do."""

    def __init__(
        self, store: StreamStore, questions: QuestionLoader, wake: Callable[[], None]
    ) -> None:
        self.store = store
        self.questions = questions
        self.wake = wake
        self.tracked: dict[str, TrackedStream] = {}
        self.lagging: dict[str, None] = {}
        self.stale: set[str] = set()
        self.totals = Totals()
        self._loading: dict[str, asyncio.Lock] = {}

    def own(self, streams: Iterable[str]) -> None:
        """This worker scores the live edges of these streams from now on."""
        for stream in streams:
            self.tracked.setdefault(stream, TrackedStream(Cursor())).owned = True
            self.mark_stale(stream)

    def disown(self, streams: Iterable[str]) -> None:
        """Another worker owns these streams now. Those that a query waits for stay tracked."""
        for stream in streams:
            if stream in self.tracked:
                self.tracked[stream].owned = False
                self.totals.update(stream, None)
                self.drop(stream)

    def on_commit(self, stream: str, cursor: Cursor) -> None:
        """This worker wrote to the stream's log."""
        tracked = self.tracked.get(stream)
        if tracked is None or not tracked.owned:
            self.own([stream])
        elif tracked.cursor.questions != cursor.questions:
            self.mark_stale(stream)
        else:
            tracked.cursor = cursor
            self.refresh_lag(stream)

    def on_questions_changed(self, stream: str) -> None:
        """The stream's questions were changed in Redis."""
        if stream in self.tracked:
            self.mark_stale(stream)

    def lag(self) -> int:
        """Segments of owned streams that are unscored for a standing question."""
        return self.totals.lag

    def lag_by_partition(self) -> Counter[str]:
        """The lag by topic/partition; a stream counts for each partition that ever fed it."""
        lag = Counter[str]()
        for stream in self.lagging:
            unscored = self.totals.by_stream.get(stream, NOTHING).lag
            for partition in self.tracked[stream].cursor.next if unscored else ():
                lag[partition] += unscored
        return lag

    def mark_stale(self, stream: str) -> None:
        """Have the stream read again: it has changed in Redis."""
        self.stale.add(stream)
        self.wake()

    async def refresh(self) -> None:
        """Read all stale streams again, at most LOADS_AT_ONCE at a time."""
        while self.stale:
            some = [self.stale.pop() for _ in range(min(len(self.stale), LOADS_AT_ONCE))]
            try:
                await asyncio.gather(*map(self.load, some))
            except BaseException:
                self.stale.update(some)
                raise

    async def load(self, stream: str) -> None:
        """Read the stream's cursor, its questions and their ranges. Reads of one stream do not
        overlap, so that an older one cannot replace a newer one. Raises LostWritesError if the
        stream went back in Redis, or is being rebuilt, which is up to its next owner."""
        tracked = self.tracked.get(stream)
        if tracked is None:
            return
        async with self._loading.setdefault(stream, asyncio.Lock()):
            known = tracked.cursor
            cursor, records = await self.store.questions.tracked(stream)
            _check_not_older(stream, cursor, known, tracked.owned)
            questions = await self.questions.load(stream, tracked.owned, records)
            changed = tracked.changed(questions)
            await self._read_ahead(cursor, changed)
        if cursor.version >= tracked.cursor.version:
            tracked.cursor = cursor
        tracked.update_questions(questions, {question.qid for question in changed})
        if self.tracked.get(stream) is tracked:
            self.refresh_lag(stream)

    async def _read_ahead(self, cursor: Cursor, questions: Iterable[TrackedQuestion]) -> None:
        """Find the segments outside the ranges of these questions that were read."""
        for question in questions:
            scored = question.scored_range
            if scored.scattered > 0:
                rows = await self.store.rows(
                    question.stream, question.qid, cursor.first, cursor.head
                )
                question.set_ahead(i for i in rows.read() if not scored.lo <= i < scored.hi)

    def refresh_lag(self, stream: str) -> None:
        """Update the totals, and whether the stream has anything to score."""
        tracked = self.tracked[stream]
        head, first = tracked.cursor.head, tracked.cursor.first
        self.totals.update(stream, tracked)
        if any(question.is_behind(head, first) for question in tracked.standing_questions()):
            self.lagging.setdefault(stream)
            self.wake()
        else:
            self.lagging.pop(stream, None)
            tracked.forget_pending()

    def rotate(self, streams: set[str]) -> None:
        """Move these after all others that lag, in their present order."""
        for stream in [name for name in self.lagging if name in streams]:
            self.lagging[stream] = self.lagging.pop(stream)

    def drop(self, stream: str) -> None:
        """Forget the stream if it is neither owned nor waited for."""
        tracked = self.tracked[stream]
        if not tracked.owned and not tracked.waiters:
            del self.tracked[stream]
            self._loading.pop(stream, None)
            self.totals.update(stream, None)
            self.lagging.pop(stream, None)


def _check_not_older(stream: str, cursor: Cursor, known: Cursor, owned: bool) -> None:
    """Raise LostWritesError if the cursor just read shows lost writes, or a rebuild of an owned
    stream. known: the cursor as it was known before the read."""
    if cursor.version < known.version:
        raise LostWritesError(f"stream {stream!r}: Redis lost writes that it had confirmed")
    if owned and known.version and cursor.rebuilt > known.rebuilt:
        raise LostWritesError(
            f"stream {stream!r} is being rebuilt. This worker ends; the next one reads it again "
            "from Kafka."
        )
