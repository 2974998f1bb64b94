"""A store, and one or more scorers on it, driven step by step."""

import math
import time
from collections.abc import Callable

from stream_app.scoring.scorer import Scorer
from stream_app.store.ranking import ranked
from stream_app.store.state import Commit, Committed, Cursor, QuestionRecord, ScoredRange
from stream_app.store.store import StreamStore
from tests.support.fakes import (
    PLENTY,
    HashEngine,
    batch,
    best,
)
from tests.support.numbers import TALK
from xl3m_core import Engine

Fresh = Callable[[str], str]


class World:
    """A store, and one or more scorers on it that a test drives. max_lag: in tokens; triage: of all
    scorers."""

    def __init__(
        self,
        store: StreamStore,
        engine: Engine | None = None,
        max_lag: int = PLENTY,
        on_room: Callable[[], None] = lambda: None,
        triage: bool = False,
    ):
        self.store = store
        self.engine = engine or HashEngine()
        self.scorer = Scorer(self.engine, store, max_lag, on_room=on_room, triage=triage)
        self.triage = triage
        self.text: dict[str, str] = {}
        self.is_talk = False

    def another(self) -> Scorer:
        """One more scorer on the same Redis."""
        return Scorer(self.engine, self.store, PLENTY, triage=self.triage)

    async def grow(
        self, stream: str, segments: int, *also: Scorer, partition: str = "t/0"
    ) -> Cursor:
        """Write that many more segments, and tell `scorer` and the others in `also`."""
        width = self.engine.method.segment_tokens
        base = await self.store.load(stream)
        lines = range(base.cursor.head, base.cursor.head + segments + (base.cursor.version == 0))
        text = "".join(f"{i}".rjust(width - 1, ".") + "\n" for i in lines)
        text = text.translate(TALK) if self.is_talk else text
        self.text[stream] = self.text.get(stream, "") + text
        tail, new = self.engine.segmenter().push(base.tail, text)
        assert len(new) == segments
        commit = Commit(stream, base, new, tail, partition, 1, base.cursor.head + 1)
        (result,) = await self.store.commit([commit])
        assert isinstance(result, Committed)
        state = result.state
        for scorer in (self.scorer, *also):
            scorer.streams.on_commit(stream, state.cursor)
        return state.cursor

    async def ask(self, stream: str, question: str = "q?", ttl: float = 0) -> str:
        """Set a question and return its id: a standing one, or with `ttl` seconds an ad hoc one."""
        qid = self.scorer.question_id(question)
        expires_at = time.time() + ttl if ttl else 0.0
        record = QuestionRecord(question, expires_at)
        await self.store.questions.ask(stream, qid, record, keep=True)
        self.scorer.streams.on_questions_changed(stream)
        return qid

    async def drain(self) -> int:
        """Step until nothing is unscored; returns the number of steps."""
        steps = 0
        while await self.scorer.step():
            steps += 1
        return steps

    async def range(self, stream: str, qid: str) -> ScoredRange:
        scored = await self.store.scored_range(stream, qid)
        assert scored is not None
        return scored

    async def scores(self, stream: str, qid: str) -> list[float]:
        """Every score of the range, as stored in Redis."""
        scored = await self.range(stream, qid)
        rows = await self.store.rows(stream, qid, scored.lo, scored.hi)
        scores = [rows.score(index) for index in range(scored.lo, scored.hi)]
        return [math.nan if score is None else score for score in scores]

    async def assert_equals_batch(self, stream: str, question: str = "q?") -> None:
        """Assert that top-k and all scores are those of a batch over the whole text."""
        qid = self.scorer.question_id(question)
        _, segments = batch(self.engine, self.text[stream])
        view = await self.store.snapshot(stream, qid)
        assert view is not None
        assert view.scored_range == ScoredRange(0, len(segments))
        top = ranked(view, self.engine.method.k)
        assert [(s.index, score) for s, score in top] == best(self.engine, segments, question)
        assert [s.text for s, _ in top] == [segments[s.index].text for s, _ in top]
        pairs = [(segment.text, question) for segment in segments]
        stored = [round(score, 4) for score in await self.scores(stream, qid)]
        assert stored == self.engine.score(pairs)


async def drain(scorer: Scorer) -> None:
    """Step until nothing is unscored."""
    while await scorer.step():
        pass
