"""LookAhead: of a long log that a query waits for, what to score first.

The scout names it, by words alone. Knows ranges; not how anything is scored.
"""

import math
from collections import deque
from collections.abc import Iterable

from stream_app.scoring.jobs import Watched, lacking
from stream_app.scoring.prefilter import Scout

SCOUTED_SEGMENTS = 2000
SCOUTED_SHARE = 0.05


class LookAhead:
    """One per worker; without a scout everything is scored as it lies."""

    def __init__(self, scout: Scout | None) -> None:
        self.scout = scout

    async def look(self, watched: Watched, stream: str, qid: str) -> None:
        """Where much is not scored yet for the question, pick what is promising."""
        standing = watched.questions.get(qid)
        if not (self.scout and standing) or qid in watched.looking or watched.picks.get(qid):
            return
        parts = lacking(standing.planned, watched.cursor)
        if sum(map(len, parts)) < SCOUTED_SEGMENTS:
            return
        watched.looking.add(qid)
        try:
            picks = await _picks(self.scout, stream, standing.asked.question, parts)
            watched.picks[qid] = deque(picks)
        finally:
            watched.looking.discard(qid)


async def _picks(scout: Scout, stream: str, question: str, parts: Iterable[range]) -> list[int]:
    """The most promising of each part of the log."""
    picks = list[int]()
    for part in filter(None, parts):
        most = math.ceil(SCOUTED_SHARE * len(part))
        picks += await scout.picks(stream, question, part.start, part.stop, most)
    return picks
