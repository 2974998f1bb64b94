"""Triage: what the model reads first of a stream that is faster than it.

Before each step the segments that have come since the last one get their lexical scores: which
share of a question's words they hold. The model takes the most promising first, and the newest
before older ones. What it has not read when the stream is quiet again it reads then, so that in the
end all is read, as in the order of the log. After a restart the scores are computed again.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from stream_app.scoring.jobs import TrackedQuestion, TrackedStream
from stream_app.scoring.pending import MAX_PENDING
from stream_app.store.store import StreamStore
from xl3m_core import Segment
from xl3m_core.lexical import QuestionWords, words

NEWEST_EVERY = 4
"""One segment in so many is the newest unread one, whatever its words."""
MATCHES_PER_STEP = 1024
"""Lexical scores computed before a step, about 0.1 ms each."""
STREAMS_PER_STEP = 64
MAX_PENDING_TOTAL = 200_000
"""Of all questions; about 20 MB."""

QuestionWordsOf = Callable[[str], QuestionWords]
"""The words of a question, with their weights."""


class Triage:
    """One per worker. words_of: gives a question's words, whose share in a text is its lexical
    score."""

    def __init__(self, store: StreamStore, words_of: QuestionWordsOf) -> None:
        self.store = store
        self.words_of = words_of

    async def match_new(
        self, selections: Iterable[tuple[TrackedStream, Sequence[TrackedQuestion]]], above: float
    ) -> None:
        """Score the newest unread segments of these questions, of those that have more than `above`
        unread ones at the live edge; one round trip a stream."""
        room = MATCHES_PER_STEP
        some = [*islice(selections, STREAMS_PER_STEP)]
        for stream, questions in some:
            behind = [q for q in questions if q.unscored(stream.cursor, history=False) > above]
            if behind and room > 0:
                most = MAX_PENDING_TOTAL // (len(some) * len(behind))
                limit = max(1, room // len(behind))
                room -= await self._match(stream, behind, limit, min(most, MAX_PENDING))

    async def _match(
        self, stream: TrackedStream, questions: Sequence[TrackedQuestion], limit: int, most: int
    ) -> int:
        """Score at most `limit` segments for each question, and keep `most` of each; returns how
        many scores were computed."""
        wanted = [(question, question.unmatched(stream.cursor, limit)) for question in questions]
        if not (indices := sorted({index for _, new in wanted for index in new})):
            return 0
        (segments,) = await self.store.logs([(questions[0].stream, indices)])
        scored = await asyncio.to_thread(self._scores, segments, wanted)
        for (question, new), scores in zip(wanted, scored, strict=True):
            question.pending.add([(index, scores.get(index, 0.0)) for index in new], most)
        return sum(len(new) for _, new in wanted)

    def _scores(
        self, segments: Sequence[Segment], wanted: Sequence[tuple[TrackedQuestion, Sequence[int]]]
    ) -> list[dict[int, float]]:
        """By question, each new segment's lexical score."""
        in_text = {segment.index: {*words(segment.text)} for segment in segments}
        asked = [(self.words_of(question.record.question), new) for question, new in wanted]
        return [{i: own.share(in_text[i]) for i in new if i in in_text} for own, new in asked]


def picks(stream: TrackedStream, questions: Sequence[TrackedQuestion], limit: int) -> list[int]:
    """At most `limit` unread segments of the live edge to read now for these questions, the one
    with most unread segments first: by turns the most promising of each, and every few times the
    newest."""
    newest = iter(questions[0].newest_unread(stream.cursor, limit))
    promising = [question.promising(stream.cursor) for question in questions]
    found = dict[int, None]()
    while len(found) < limit:
        stream.turn += 1
        rounds, others = divmod(stream.turn, NEWEST_EVERY)
        by_words = promising[(rounds * (NEWEST_EVERY - 1) + others) % len(promising)]
        index = next(by_words, None) if others else None
        if index is None and (index := next(newest, None)) is None:
            break
        found[index] = None
    return [*found]
