"""TopicPattern: subscribes to new topics that match the configured pattern."""

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
    """One per worker. names: subscribed topics; new ones are added. subscribe: called with the new
    topics."""

    def __init__(
        self, settings: Settings, names: set[str], subscribe: Callable[[list[str]], Awaitable[None]]
    ) -> None:
        self.settings = settings
        self.names = names
        self.subscribe = subscribe

    async def run(self) -> None:
        """Check regularly, if the topics are named by a pattern."""
        if self.settings.tokens_pattern is None:
            return
        checks = 0
        while True:
            try:
                await self.refresh()
            except (UnreachableError, SettingsError) as error:  # a file it needs may be deleted
                logger.warning("checking for new topics: %s", error)
            checks += 1
            if checks == 1 and not self.names:
                logger.warning(
                    "no topic matches %s yet: waiting for one", self.settings.tokens_topic
                )
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Subscribe to new topics."""
        if new := sorted(set(await matching(self.settings)) - self.names):
            logger.info("reading topics %s", ", ".join(new))
            self.names.update(new)
            await self.subscribe(new)


def subscriber(app: Any, topic: Any) -> Callable[[list[str]], Awaitable[None]]:
    """A function that adds names to a Faust topic and subscribes to them."""

    async def subscribe(names: list[str]) -> None:
        while app.rebalancing or not app.rebalancing_count:
            await asyncio.sleep(0.1)
        known, extended = {*topic.topics}, [*topic.topics, *names]
        # An agent reads a copy of the topic, which was made with fewer names, or none.
        for channel in [topic, *app.topics]:
            if {*channel.topics} <= known:
                channel.topics = extended
        await app.consumer.subscribe(await app.topics._update_indices())

    return subscribe
