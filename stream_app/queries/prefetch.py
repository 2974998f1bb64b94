"""Warming: the prompts of questions that are asked again are read before they are asked.

A question that was asked lately is hot. When its top-k changes, its key context is spliced and
read by the model, which keeps what it read. Knows the store and the engine; answers nothing.
"""

import asyncio
import logging
import time
from functools import partial

from stream_app.scoring.scorer import Scorer
from stream_app.store.store import StreamStore
from xl3m_core import Engine

logger = logging.getLogger("xl3m")

RECENT_QUESTIONS = 32
RECENT_SECONDS = 600.0
INTERVAL_SECONDS = 1.0


class PromptPrefetcher:
    """One per worker."""

    def __init__(self, engine: Engine, store: StreamStore, scoring: Scorer) -> None:
        self.engine = engine
        self.store = store
        self.scoring = scoring
        self.recent: dict[tuple[str, str], tuple[str, float]] = {}
        self.stale: set[tuple[str, str]] = set()
        self._wake = asyncio.Event()

    def asked(self, stream: str, qid: str, question: str) -> None:
        """The question was answered: it is the hottest now."""
        self.recent.pop((stream, qid), None)
        self.recent[stream, qid] = (question, time.monotonic())
        while len(self.recent) > RECENT_QUESTIONS:
            del self.recent[next(iter(self.recent))]

    def changed(self, stream: str, qid: str) -> None:
        """The question's top-k is another."""
        asked = self.recent.get((stream, qid))
        if asked and time.monotonic() - asked[1] < RECENT_SECONDS:
            self.stale.add((stream, qid))
            self._wake.set()

    async def run(self) -> None:
        """Warm what has gone cold, each question once a second at most."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.prefetch()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def prefetch(self) -> None:
        """Read the prompts of all hot questions that have another key context now. What changes
        meanwhile waits for the next time."""
        cold, self.stale = self.stale, set()
        for stream, qid in cold:
            view = await self.store.snapshot(stream, qid)
            if view is None or (stream, qid) not in self.recent:
                continue
            question, best = self.recent[stream, qid][0], [segment for segment, _ in view.top]
            try:
                await self.scoring.run_on_model(partial(self.engine.prefill, best, question))
            except Exception as error:  # out of memory, say: the query will tell
                logger.warning("stream %r: could not read ahead: %s", stream, error)
