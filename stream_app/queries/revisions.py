"""Revisions: early answers to a query while its log is being scored.

The first one comes soon, from the segments that were scored by then; another one follows whenever
the key context has changed. None of them is the query's answer, which comes once the log is covered
or the deadline is over. Generating takes the model from scoring, so its share of time is bounded.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from xl3m_core import Answer, Generated, KeyContext, Segment

SCORING_SHARE = 3.0
"""After a revision, scoring has the model for this many times as long as generating it took."""
PAUSE_SECONDS = 1.0
"""The least time between two revisions of one worker."""
POLL_SECONDS = 0.25
"""How often it is checked whether any segment was scored, before the first answer."""
SMOOTHING = 0.5

Basis = tuple[int, int]
"""How many segments were read, and where the stream's text ends."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer as it was generated. basis: what was read to rank the segments; ranked: those that
    it was generated from, the most certain first."""

    basis: Basis
    ranked: list[Segment]
    context: KeyContext
    generated: Generated


class Reader(Protocol):
    """Where revisions go to: the endpoint of the query."""

    def draft(self, revision: int, text: str) -> None:
        """The next piece of a revision's text. Revisions count from 1."""

    def revised(self, revision: int, answer: Answer) -> None:
        """A revision is complete."""

    @property
    def listens(self) -> bool:
        """Whether anyone receives them, as far as is known."""


class RevisionPace:
    """When a worker may generate revisions; one for all of its queries. first_seconds: by when a
    first answer is to be complete; expected: seconds that generating an answer takes."""

    def __init__(self, first_seconds: float) -> None:
        self.first_seconds = first_seconds
        self.expected = first_seconds / 3
        self.turn = asyncio.Lock()
        self._free_at = 0.0
        self._is_measured = False

    def observe(self, seconds: float) -> None:
        """Generating an answer took this long."""
        known = self.expected if self._is_measured else seconds
        self.expected = SMOOTHING * known + (1 - SMOOTHING) * seconds
        self._is_measured = True

    def first_pause(self) -> float:
        """Seconds from the query to the generation of its first answer: as late as possible, but
        not before a third of the time, however slow the model is."""
        return max(self.first_seconds - self.expected, self.first_seconds / 3)

    @property
    def is_free(self) -> bool:
        """Whether a revision may begin now. A query's first one does not wait for it."""
        return time.monotonic() >= self._free_at

    def pause(self) -> float:
        """Seconds until the next revision may begin."""
        return max(PAUSE_SECONDS, self._free_at - time.monotonic())

    def generated(self, seconds: float) -> None:
        """A revision took so many seconds, or was found to be the last one again: now scoring has
        its time."""
        self._free_at = time.monotonic() + SCORING_SHARE * seconds


class Revisions:
    """The revisions of one query. revise: makes a draft and its answer from what is scored by now.
    It gets the revision's number and the last draft, and returns None if the segments are those of
    the last draft, or if nothing was scored yet."""

    def __init__(
        self,
        pace: RevisionPace,
        reader: Reader,
        revise: Callable[[int, Draft | None], Awaitable[tuple[Draft, Answer] | None]],
    ) -> None:
        self.pace = pace
        self.reader = reader
        self.revise = revise
        self.last: Draft | None = None
        self.count = 0

    async def run(self, covered: "asyncio.Task[None]", deadline: float, at_once: bool) -> None:
        """Revise until the log is covered, the deadline (by `time.monotonic()`) is near, or nobody
        listens. at_once: there are scores already. Raises what `revise` raises."""
        pause = 0.0 if at_once else self.pace.first_pause()
        while not await _is_done(covered, pause) and self.reader.listens:
            if time.monotonic() + self.pace.expected >= deadline:
                return
            await self._revise(covered)
            pause = self.pace.pause() if self.count else POLL_SECONDS

    async def _revise(self, covered: "asyncio.Task[None]") -> None:
        """Publish one revision, unless it would be the last one again, or another query's revision
        has just used up the time."""
        if self.pace.turn.locked():  # by another query, which must not hold up this one's answer
            return
        async with self.pace.turn:
            if covered.done() or (self.count and not self.pace.is_free):
                return
            started = time.monotonic()
            made = await self.revise(self.count + 1, self.last)
            self.pace.generated(time.monotonic() - started)
            if made is None:
                return
        self.last, answer = made
        self.count += 1
        self.reader.revised(self.count, answer)


async def _is_done(covered: "asyncio.Task[None]", seconds: float) -> bool:
    """Whether the task ends within so many seconds."""
    await asyncio.wait([covered], timeout=seconds)
    return covered.done()


def same_segments(ranked: Sequence[Segment], draft: Draft | None) -> bool:
    """Whether a draft was generated from these segments, in any order."""
    return draft is not None and set(ranked) == set(draft.ranked)
