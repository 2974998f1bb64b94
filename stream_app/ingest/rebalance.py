"""RebalanceListener: takes over the partitions of a new assignment, and the streams in them."""

import logging
from functools import partial
from typing import cast

from stream_app.ingest.partitions import Assignment
from stream_app.ingest.takeover import Broker
from stream_app.ingest.tokens import Ingest
from stream_app.kafka.consumer import Consumer
from stream_app.kafka.faust_app import App
from stream_app.runtime.retry import Health, retry_forever
from stream_app.scoring.scorer import Scorer

logger = logging.getLogger("xl3m")


class RebalanceListener:
    """One per worker. `on_assigned` is called after each rebalance, before events arrive."""

    def __init__(
        self, app: App, ingest: Ingest, questions: Assignment, scorer: Scorer, health: Health
    ) -> None:
        self.app = app
        self.ingest = ingest
        self.questions = questions
        self.scorer = scorer
        self.health = health

    async def on_assigned(self) -> None:
        """Draw epochs, set the group's offsets to where Redis stands, and pass the streams of won
        and lost partitions to the scorer. Ends with RebalanceAgain if the partitions are revoked
        meanwhile."""
        generation = self.app.consumer_generation_id
        await self._assign(self.questions, generation)
        owned, lost = await self._assign(self.ingest.assignment, generation)
        self.ingest.forget()
        for partition in lost:
            self.scorer.streams.disown(await self._streams(partition))
        for partition in owned:
            self.scorer.streams.own(await self._streams(partition))
        logger.info("ready: reads %s", ", ".join(sorted(owned)) or f"no partition, {self._why()}")

    async def _assign(self, assignment: Assignment, generation: int) -> tuple[list[str], list[str]]:
        """The partitions of one topic that are owned now, and those that were lost."""
        consumer = cast(Consumer, self.app.consumer)
        check = partial(consumer.check, generation)

        async def attempt() -> tuple[list[str], list[str]]:
            check()
            return await assignment.assign(consumer.assignment(), cast(Broker, consumer), check)

        return await retry_forever(self.health, "assignment", attempt)

    async def _streams(self, partition: str) -> list[str]:
        return await self.ingest.store.streams(partition)

    def _why(self) -> str:
        """Why no partition of the tokens topic was assigned."""
        consumer = cast(Consumer, self.app.consumer)
        is_missing = consumer.missing_topics() or not self.ingest.assignment.topics
        return "since there is no topic yet" if is_missing else "since others have them all"
