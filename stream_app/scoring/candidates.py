"""Candidates: which segments of a long log to score first, and in what order.

The best by words come first, in talk each with its neighbours: what answers a question there is
seldom one segment alone. Where words promise nothing, segments spread over the log stand in for
them. No I/O.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from stream_app.scoring.jobs import TrackedQuestion
from xl3m_core.smoothing import REACH

SHARE = 0.05
"""Of the unscored segments."""
PER_K = 4
"""At least so many for each segment of the top-k: a log of 40 segments has 2 in its twentieth, and
those could not fill a top-k of 4."""
TALK_REACH = 1
"""Neighbours at either side that are scored with a good segment of talk. With 2 k candidates .99 of
the full scan's evidence is found so on QMSum, without neighbours .91, with two .96 to .99."""


def most_candidates(segments: int, k: int) -> int:
    """How many of the unscored segments are scored out of order."""
    return min(segments, max(PER_K * k, math.ceil(SHARE * segments)))


def candidates(ranked: Sequence[int], is_talk: bool, parts: Sequence[range], k: int) -> list[int]:
    """The segments of the parts to score first, best first. ranked: those that words promise."""
    most = most_candidates(sum(map(len, parts)), k)
    near = with_neighbours(ranked, TALK_REACH, parts) if is_talk else ranked
    chosen = [*islice(near, most)]
    if len(chosen) < (least := min(most, PER_K * k)):
        chosen = [*islice(dict.fromkeys([*chosen, *islice(spread(parts), 2 * least)]), least)]
    return chosen


def with_neighbours(ranked: Iterable[int], reach: int, parts: Sequence[range]) -> Iterator[int]:
    """Each segment, followed by those at most `reach` from it, nearest first; each once, and only
    those in the parts."""
    seen = set[int]()
    for index in ranked:
        for offset in sorted(range(-reach, reach + 1), key=abs):
            near = index + offset
            if near not in seen and any(near in part for part in parts):
                seen.add(near)
                yield near


def around(top: Iterable[int], parts: Sequence[range]) -> list[int]:
    """The neighbours of the best segments, on which their smoothed scores rest, nearest first."""
    best = [*top]
    near = with_neighbours(best, REACH, parts)
    return [index for index in near if index not in best]


def spread(parts: Sequence[range]) -> Iterator[int]:
    """The segments of the parts, such that any beginning of them is spread evenly: place n is at
    the share of the log that the bits of n in reverse say (van der Corput's sequence). Some come
    twice."""
    total = sum(map(len, parts))
    bits = max(1, (total - 1).bit_length())
    for n in range(1 << bits):
        yield _at(parts, int(f"{n:0{bits}b}"[::-1], 2) * total >> bits)


def _at(parts: Sequence[range], place: int) -> int:
    """The segment at a place of the parts, which are counted one after the other."""
    for part in parts:
        if place < len(part):
            return part[place]
        place -= len(part)
    raise IndexError(place)


class Offer:
    """What is offered to one question, and what of it was taken; what is taken is never offered
    again."""

    def __init__(self) -> None:
        self.taken = set[int]()
        self._given = set[int]()

    def put(self, question: TrackedQuestion, order: Iterable[int]) -> None:
        """Replace the question's candidates, the first is taken first."""
        self.note_taken(question)
        question.candidates = deque(index for index in order if index not in self.taken)
        self._given = set(question.candidates)

    def note_taken(self, question: TrackedQuestion) -> None:
        """Note which of those offered the question has no more."""
        self.taken |= self._given.difference(question.candidates)
