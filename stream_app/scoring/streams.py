"""Streams: what this worker knows of the streams it scores, kept as Redis has it.

A stream is watched while its partition is this worker's, or a query waits for it here. Knows
the store; not when anything is scored, nor by what.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from stream_app.scoring.jobs import TrackedStream
from stream_app.scoring.standing import QuestionLoader
from stream_app.scoring.totals import NOTHING, Totals
from stream_app.store.state import Cursor, LostWritesError
from stream_app.store.store import StreamStore

RELOADED_AT_ONCE = 64


class StreamRegistry:
    """`behind`: those that have something to score, by turns; `stale`: those to be read again.

    wake: called when there is something to do.
    """

    def __init__(
        self, store: StreamStore, standing: QuestionLoader, wake: Callable[[], None]
    ) -> None:
        self.store = store
        self.standing = standing
        self.wake = wake
        self.tracked: dict[str, TrackedStream] = {}
        self.lagging: dict[str, None] = {}
        self.stale: set[str] = set()
        self.totals = Totals()

    def own(self, streams: list[str]) -> None:
        """The live edges of these streams are this worker's from now on."""
        for stream in streams:
            self.tracked.setdefault(stream, TrackedStream(Cursor())).owned = True
            self.mark_stale(stream)

    def disown(self, streams: list[str]) -> None:
        """Another worker owns these streams now; what a query waits for is scored here still."""
        for stream in streams:
            if stream in self.tracked:
                self.tracked[stream].owned = False
                self.totals.update(stream, None)
                self.drop(stream)

    def on_commit(self, stream: str, cursor: Cursor) -> None:
        """The log of a stream of this worker's was written to."""
        watched = self.tracked.get(stream)
        if watched is None or not watched.owned:
            self.own([stream])
        elif watched.cursor.questions != cursor.questions:
            self.mark_stale(stream)
        else:
            watched.cursor = cursor
            self.refresh_lag(stream)

    def on_questions_changed(self, stream: str) -> None:
        """The stream's questions were changed."""
        if stream in self.tracked:
            self.mark_stale(stream)

    def lag(self) -> int:
        """Segments read but not scored for a current question of an owned stream."""
        return self.totals.lag

    def lag_by_partition(self) -> Counter[str]:
        """The same by topic/partition; a stream's counts for each partition that ever fed it."""
        backlogs = Counter[str]()
        for stream in self.lagging:
            unscored = self.totals.by_stream.get(stream, NOTHING).lag
            for partition in self.tracked[stream].cursor.next if unscored else ():
                backlogs[partition] += unscored
        return backlogs

    def mark_stale(self, stream: str) -> None:
        """The stream is not as it was seen: it will be read again."""
        self.stale.add(stream)
        self.wake()

    async def refresh(self) -> None:
        """Read the stale streams again, some at a time."""
        while self.stale:
            some = [self.stale.pop() for _ in range(min(len(self.stale), RELOADED_AT_ONCE))]
            try:
                await asyncio.gather(*map(self.load, some))
            except BaseException:
                self.stale.update(some)
                raise

    async def load(self, stream: str) -> None:
        """Read where the stream stands, its questions and their ranges; one reader at a time, so
        that what was read last is what is kept. Raises LostWritesError if it went back, or is to
        be read again from Kafka, which is the next owner's part."""
        watched = self.tracked.get(stream)
        if watched is None:
            return
        async with watched.loading:
            known = watched.cursor
            cursor, records = await self.store.tracked(stream)
            if cursor.version < known.version:
                raise LostWritesError(f"stream {stream!r}: Redis lost what it had taken")
            if watched.owned and known.version and cursor.rebuilt > known.rebuilt:
                raise LostWritesError(
                    f"stream {stream!r} is being rebuilt. This worker ends; the next one reads it "
                    "again from Kafka."
                )
            standing = await self.standing.load(stream, watched.owned, records)
        if cursor.version >= watched.cursor.version:
            watched.cursor = cursor
        watched.take(standing)
        if self.tracked.get(stream) is watched:
            self.refresh_lag(stream)

    def refresh_lag(self, stream: str) -> None:
        """Note whether the stream has anything to score."""
        watched = self.tracked[stream]
        cursor = watched.cursor
        self.totals.update(stream, watched)
        if any(
            each.is_behind(cursor.head, cursor.first)
            for each in watched.standing_questions().values()
        ):
            self.lagging.setdefault(stream)
            self.wake()
        else:
            self.lagging.pop(stream, None)

    def rotate(self, streams: set[str]) -> None:
        """These are last the next time, in the order they have now."""
        for stream in [each for each in self.lagging if each in streams]:
            self.lagging[stream] = self.lagging.pop(stream)

    def drop(self, stream: str) -> None:
        """Forget the stream if it is neither owned nor waited for."""
        watched = self.tracked[stream]
        if not watched.owned and not watched.waiters:
            del self.tracked[stream]
            self.totals.update(stream, None)
            self.lagging.pop(stream, None)
