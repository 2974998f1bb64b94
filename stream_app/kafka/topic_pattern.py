"""TopicWatch: topics that match the pattern are read as soon as they are there.

Knows the cluster's topics and how Faust subscribes; not what topics carry.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from stream_app.errors import SettingsError, UnreachableError
from stream_app.kafka.topics import matching
from stream_app.settings import Settings

logger = logging.getLogger("xl3m")

POLL_SECONDS = 15.0


class TopicPattern:
    """One per worker. names: of the topics that are read, which grow; subscribe: called when they
    did."""

    def __init__(
        self, settings: Settings, names: set[str], subscribe: Callable[[list[str]], Awaitable[None]]
    ) -> None:
        self.settings = settings
        self.names = names
        self.subscribe = subscribe

    async def run(self) -> None:
        """Look again and again, for as long as topics are named by a pattern."""
        if self.settings.tokens_pattern is None:
            return
        looked = 0
        while True:
            try:
                await self.refresh()
            except (UnreachableError, SettingsError) as error:  # a file it needs may be gone
                logger.warning("looking for topics: %s", error)
            looked += 1
            if looked == 1 and not self.names:
                logger.warning(
                    "no topic matches %s yet: waiting for one", self.settings.tokens_topic
                )
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Read those that are new."""
        if new := sorted(set(await matching(self.settings)) - self.names):
            logger.info("reading topics %s", ", ".join(new))
            self.names.update(new)
            await self.subscribe(new)


def subscriber(app: Any, topic: Any) -> Callable[[list[str]], Awaitable[None]]:
    """Has a Faust app read more names as one topic."""

    async def subscribe(names: list[str]) -> None:
        while app.rebalancing or not app.rebalancing_count:
            await asyncio.sleep(0.1)
        known, read = {*topic.topics}, [*topic.topics, *names]
        # What an agent reads is a copy of the topic, made while it had fewer names, or none.
        for channel in [topic, *app.topics]:
            if {*channel.topics} <= known:
                channel.topics = read
        await app.consumer.subscribe(await app.topics._update_indices())

    return subscribe
