"""StandingQuestions: which of a stream's questions this worker's model scores, and as what.

A question's scores are one model's, one measure's, one k's: its id says whose. Knows the
engine and the store; not when anything is scored.
"""

import logging
from typing import TYPE_CHECKING

from stream_app.scoring.jobs import TrackedQuestion
from stream_app.store.keys import question_id
from stream_app.store.state import QuestionRecord
from stream_app.store.store import StreamStore
from xl3m_core import QuestionError

if TYPE_CHECKING:
    from xl3m_core import Engine

logger = logging.getLogger("xl3m")


class QuestionLoader:
    """One per worker."""

    def __init__(self, engine: "Engine", store: StreamStore) -> None:
        self.engine = engine
        self.store = store

    async def load(self, stream: str, owned: bool) -> dict[str, TrackedQuestion]:
        """The questions this worker's model scores, with their ranges."""
        mine = dict[str, QuestionRecord]()
        for qid, asked in (await self.store.questions(stream)).items():
            if not self._fits(asked):
                continue
            if qid != self.question_id(asked.question):
                if not owned or asked.expires_at:
                    continue
                qid = await self._adopt(stream, qid, asked)
            mine[qid] = asked
        ranges = zip(mine.items(), await self.store.scored_ranges(stream, mine), strict=True)
        return {qid: TrackedQuestion(asked, scored) for (qid, asked), scored in ranges if scored}

    async def _adopt(self, stream: str, qid: str, asked: QuestionRecord) -> str:
        """A current question was scored by another model, measure or k: begin it anew."""
        logger.warning("stream %r: %r is scored anew by this model", stream, asked.question[:80])
        mine = self.question_id(asked.question)
        await self.store.reissue(stream, qid, mine)
        return mine

    def _fits(self, asked: QuestionRecord) -> bool:
        """Whether the question fits the window of this worker's model."""
        try:
            self.engine.suffix(asked.question)
        except QuestionError as error:
            logger.error("question %r is left out: %s", asked.question[:80], error)
            return False
        return True

    def question_id(self, question: str) -> str:
        """The question's id for this worker's model, its wording, the measure and k."""
        model, method = self.engine.model, self.engine.method
        return question_id(
            question, model.fingerprint, model.template, method.measure, str(method.k)
        )
