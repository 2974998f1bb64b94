"""Waiters: the queries that wait until the range of their question covers the log."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stream_app.scoring.jobs import TrackedStream
from stream_app.scoring.planner import Selection
from stream_app.scoring.streams import StreamRegistry
from stream_app.store.state import Cursor


@dataclass(eq=False, slots=True)
class Waiter:
    """One query. covered: done when the range covers the log up to `head`, which is None until it
    is known."""

    stream: str
    qid: str
    covered: "asyncio.Future[None]"
    head: int | None = None


class Waiters:
    """All waiting queries of a worker, the next one to be served first."""

    def __init__(self, streams: StreamRegistry) -> None:
        self.streams = streams
        self.queue: list[Waiter] = []

    @contextmanager
    def waiting(self, stream: str, qid: str) -> Iterator[tuple[Waiter, TrackedStream]]:
        """A waiter for the block, and its stream, which is tracked for as long."""
        waiter = Waiter(stream, qid, asyncio.get_running_loop().create_future())
        tracked = self.streams.tracked.setdefault(stream, TrackedStream(Cursor()))
        self.queue.append(waiter)
        tracked.waiters += 1
        try:
            yield waiter, tracked
        finally:
            self.queue.remove(waiter)
            tracked.waiters -= 1
            self.streams.drop(stream)

    def selections(self) -> list[Selection]:
        """The questions that are waited for, by stream."""
        qids: dict[str, dict[str, None]] = {}
        for waiter in self.queue:
            qids.setdefault(waiter.stream, {})[waiter.qid] = None
        streams = [(self.streams.tracked[stream], ids) for stream, ids in qids.items()]
        return [
            (tracked, [tracked.questions[qid] for qid in ids if qid in tracked.questions])
            for tracked, ids in streams
        ]

    def rotate(self) -> None:
        """Move the first waiter to the end of the queue."""
        self.queue[:] = self.queue[1:] + self.queue[:1]

    def release(self) -> None:
        """Release the queries whose question is covered or has ended."""
        for waiter in self.queue:
            if waiter.head is None or waiter.covered.done():
                continue
            tracked = self.streams.tracked.get(waiter.stream)
            question = tracked.questions.get(waiter.qid) if tracked else None
            if not (tracked and question and question.is_behind(waiter.head, tracked.cursor.first)):
                waiter.covered.set_result(None)
