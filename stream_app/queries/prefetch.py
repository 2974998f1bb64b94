"""Prefetching prompts: the key context of a question that is asked again is prefilled beforehand.

A question is recent if it was asked in the last ten minutes. When the top-k of a recent question
changes, its new prompt is run through the model, whose prefix cache keeps it for the next query.
"""

import asyncio
import logging
import time
from functools import partial

from stream_app.scoring.scorer import Scorer
from stream_app.store.ranking import ranked
from stream_app.store.store import StreamStore
from xl3m_core import Engine

logger = logging.getLogger("xl3m")

RECENT_QUESTIONS = 32
RECENT_SECONDS = 600.0
INTERVAL_SECONDS = 1.0


class PromptPrefetcher:
    """One per worker. recent: the question and when it was asked last, by (stream, question id);
    stale: those of them whose top-k has changed since their prompt was prefilled."""

    def __init__(self, engine: Engine, store: StreamStore, scorer: Scorer) -> None:
        self.engine = engine
        self.store = store
        self.scorer = scorer
        self.recent: dict[tuple[str, str], tuple[str, float]] = {}
        self.stale: set[tuple[str, str]] = set()
        self._wake = asyncio.Event()

    def note_query(self, stream: str, qid: str, question: str) -> None:
        """The question was answered: it is the most recent one now."""
        self.recent.pop((stream, qid), None)
        self.recent[stream, qid] = (question, time.monotonic())
        while len(self.recent) > RECENT_QUESTIONS:
            del self.recent[next(iter(self.recent))]

    def mark_stale(self, stream: str, qid: str) -> None:
        """The question's top-k has changed."""
        recent = self.recent.get((stream, qid))
        if recent and time.monotonic() - recent[1] < RECENT_SECONDS:
            self.stale.add((stream, qid))
            self._wake.set()

    async def run(self) -> None:
        """Prefill stale prompts, each at most once a second."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.prefetch()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def prefetch(self) -> None:
        """Prefill all stale prompts. A top-k that changes meanwhile is stale for the next time."""
        stale, self.stale = self.stale, set()
        for stream, qid in stale:
            snapshot = await self.store.snapshot(stream, qid)
            if snapshot is None or (stream, qid) not in self.recent:
                continue
            question, _ = self.recent[stream, qid]
            segments = [segment for segment, _ in ranked(snapshot, self.engine.method.k)]
            try:
                await self.scorer.run_on_model(partial(self.engine.prefill, segments, question))
            except Exception as error:  # such as out of memory: the next query says so
                logger.warning("stream %r: a prompt could not be prefilled: %s", stream, error)
