"""Rows of segments with given scores."""

from collections.abc import Sequence

from stream_app.store.rows import SKIPPED_ROW, Flag, pack_row
from xl3m_core.features import Features


def rows_of(scores: Sequence[float | None]) -> bytes:
    """Rows of segments that are not smoothed; None: deleted before it was read."""
    return b"".join(
        SKIPPED_ROW if score is None else pack_row(score, Flag.READ, Features(-score))
        for score in scores
    )
