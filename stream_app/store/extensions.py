"""Extensions: what the script that extends a scored range is told, and the blocks of its scores.

Pure: an extension in, names and arguments out. Knows the layout in Redis; sends nothing.
"""

from typing import Any

from stream_app.store import keys as layout
from stream_app.store.codec import pack_segment
from stream_app.store.keys import Keys
from stream_app.store.scripts import Call
from stream_app.store.state import RangeUpdate


def range_update_call(keys: Keys, e: RangeUpdate, k: int) -> Call:
    """Keys and arguments for `scores.lua`, whose head says which."""
    names = [make(e.stream, e.qid) for make in (keys.scored_range, keys.top, keys.text)]
    names.append(keys.cursor(e.stream))
    seen = [e.seen.lo, e.seen.hi, e.seen.rebuilt]
    args: list[Any] = [*seen, e.lo, e.hi, e.skipped, k, len(e.best)]
    for segment, score in e.best:
        args += [f"{segment.index:012d}", repr(score), pack_segment(segment)]
    for block, offset, scores in _blocks(e.start, e.scores):
        names.append(keys.scores(e.stream, e.qid, block))
        args += [offset, scores]
    return names, args


def expired_blocks(keys: Keys, e: RangeUpdate) -> str | None:
    """The latest block of scores wholly before the log's start: those before it went when it was
    their turn, since a log loses less than a block between two steps."""
    block = e.first // layout.SCORES_PER_BLOCK - 1
    return keys.scores(e.stream, e.qid, block) if block >= 0 else None


def _blocks(start: int, scores: bytes) -> list[tuple[int, int, bytes]]:
    """Scores from segment `start` on, cut at the blocks: (block, byte offset, bytes)."""
    size = layout.SCORES_PER_BLOCK * layout.SCORE_BYTES
    at, pieces = start * layout.SCORE_BYTES, []
    while scores:
        room = size - at % size
        pieces.append((at // size, at % size, scores[:room]))
        at, scores = at + room, scores[room:]
    return pieces
