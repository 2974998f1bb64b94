"""Sums: what is asked of all owned streams together, kept up as each of them changes.

There may be ten thousand; whoever asks for their backlog, a batch at a time, must not walk them.
Knows streams as scoring sees them; not who asks.
"""

import math
from typing import NamedTuple

from stream_app.scoring.jobs import TrackedStream


class StreamTotals(NamedTuple):
    """Of one stream: segments not scored for its current questions, offsets that never came, the
    least share scored for a current question (NaN without one, or without a segment)."""

    lag: int
    missing_offsets: int
    coverage: float


NOTHING = StreamTotals(0, 0, math.nan)


class Totals:
    """Over all streams noted."""

    def __init__(self) -> None:
        self.by_stream: dict[str, StreamTotals] = {}
        self.lag = 0
        self.missing_offsets = 0

    def update(self, stream: str, watched: TrackedStream | None) -> None:
        """The stream is as it is seen here now; None, or one that is not owned, counts no more."""
        old = self.by_stream.pop(stream, NOTHING)
        new = NOTHING
        if watched and watched.owned:
            new = self.by_stream[stream] = stream_totals(watched)
        self.lag += new.lag - old.lag
        self.missing_offsets += new.missing_offsets - old.missing_offsets

    def coverage(self) -> float:
        """The least of all; NaN if there is none."""
        shares = [c for _, _, c in self.by_stream.values() if c == c]
        return min(shares, default=math.nan)


def stream_totals(watched: TrackedStream) -> StreamTotals:
    """What one stream comes to."""
    head, ranges = (
        watched.cursor.head,
        [each.scored_range for each in watched.standing_questions().values()],
    )
    shares = [scored.coverage(head) for scored in ranges] if head else []
    backlog = sum(max(0, head - scored.hi) for scored in ranges)
    return StreamTotals(backlog, watched.cursor.gaps, min(shares, default=math.nan))
