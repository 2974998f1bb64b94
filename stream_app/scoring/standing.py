"""StandingQuestions: which of a stream's questions this worker's model scores, and as what.

A question's scores are one model's, one measure's, one k's: its id says whose. Knows the
engine and the store; not when anything is scored.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stream_app.scoring.jobs import TrackedQuestion
from stream_app.store.keys import question_id
from stream_app.store.questions import TrackedRecord
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

    async def load(
        self, stream: str, owned: bool, records: Mapping[str, TrackedRecord]
    ) -> dict[str, TrackedQuestion]:
        """The questions that this worker's model scores, with their ranges. records: as Redis has
        them; they are read again if a question of another model is adopted."""
        if owned and (foreign := self._foreign(records)):
            for qid, record in foreign.items():
                await self._adopt(stream, qid, record)
            _, records = await self.store.tracked(stream)
        return {
            qid: TrackedQuestion(record, scored)
            for qid, (record, scored) in records.items()
            if scored and qid == self.question_id(record.question) and self._fits(record)
        }

    def _foreign(self, records: Mapping[str, TrackedRecord]) -> dict[str, QuestionRecord]:
        """The standing questions that another model, measure or k has scored."""
        return {
            qid: record
            for qid, (record, _) in records.items()
            if record.is_standing
            and qid != self.question_id(record.question)
            and self._fits(record)
        }

    async def _adopt(self, stream: str, qid: str, asked: QuestionRecord) -> None:
        """A current question was scored by another model, measure or k: begin it anew."""
        logger.warning("stream %r: %r is scored anew by this model", stream, asked.question[:80])
        await self.store.reissue(stream, qid, self.question_id(asked.question))

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
