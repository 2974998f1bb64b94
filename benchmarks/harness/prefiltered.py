"""Which segments of a text the product scores first for a late question."""

from collections.abc import Sequence

from stream_app.scoring.candidates import candidates
from stream_app.scoring.prefilter import blocks
from stream_app.scoring.search_ranking import SearchRanking, search_block
from xl3m_core import Segment


def scored_first(segments: Sequence[Segment], question: str, k: int) -> list[int]:
    """The prefilter's candidates, the first to be scored first. segments: all of the text; k: size
    of the top-k."""
    parts, ranking = [range(len(segments))], SearchRanking(len(segments))
    for lo, hi in blocks(parts):
        ranking.add(search_block(segments[lo:hi], question, len(segments)))
    return candidates(ranking.best(), ranking.is_talk, parts, k)
