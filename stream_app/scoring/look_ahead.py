"""LookAhead: of a long log that a query waits for, what to score first.

The scout names it, by words alone. Knows ranges; not how anything is scored.
"""

import math
from collections import deque
from collections.abc import Iterable

from stream_app.scoring.jobs import TrackedStream, lacking
from stream_app.scoring.prefilter import Prefilter

PREFILTER_SEGMENTS = 2000
PREFILTER_SHARE = 0.05


class PrefilterScheduler:
    """One per worker; without a scout everything is scored as it lies."""

    def __init__(self, scout: Prefilter | None) -> None:
        self.scout = scout

    async def look(self, watched: TrackedStream, stream: str, qid: str) -> None:
        """Where much is not scored yet for the question, pick what is promising."""
        standing = watched.questions.get(qid)
        if not (self.scout and standing) or qid in watched.looking or watched.candidates.get(qid):
            return
        parts = lacking(standing.planned, watched.cursor)
        if sum(map(len, parts)) < PREFILTER_SEGMENTS:
            return
        watched.looking.add(qid)
        try:
            picks = await _picks(self.scout, stream, standing.record.question, parts)
            watched.candidates[qid] = deque(picks)
        finally:
            watched.looking.discard(qid)


async def _picks(scout: Prefilter, stream: str, question: str, parts: Iterable[range]) -> list[int]:
    """The most promising of each part of the log."""
    picks = list[int]()
    for part in filter(None, parts):
        most = math.ceil(PREFILTER_SHARE * len(part))
        picks += await scout.candidates(stream, question, part.start, part.stop, most)
    return picks
