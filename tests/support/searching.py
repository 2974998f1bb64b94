"""What a prefilter finds in a part of a log."""

from stream_app.scoring.prefilter import Prefilter


async def found_in(prefilter: Prefilter, stream: str, question: str, part: range) -> list[int]:
    """The ten best segments, once the whole part was searched."""
    best = list[int]()
    async for ranking in prefilter.search(stream, question, [part], 10):
        best = ranking.best()
    return best
