"""TopicMonitor: detects that a subscribed topic was deleted, is back, or was recreated.

aiokafka refreshes its metadata every five minutes and takes a recreated topic for the old one. So
the metadata of missing topics is requested until they are back, and the ids of the others are
compared with those at the last assignment.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka.errors import KafkaError

from stream_app.kafka.fetch_state import TOPICS
from stream_app.kafka.topic_ids import is_other_topic, topic_ids

logger = logging.getLogger("xl3m")

IDS_SECONDS = 15.0
"""Between two checks of the ids, unless the client's metadata was just refreshed."""

MISSING_CHECKS = 3
"""A topic is missing if it does not exist in this many checks in a row."""


class TopicMonitor:
    """One per consumer, on its thread. missing: subscribed topics that do not exist; rejoin: starts
    a rebalance; blocked: what waits for an operator, with the reason, as /readyz reports it."""

    def __init__(self, consumer: Any, rejoin: Callable[[], None], blocked: dict[str, str]) -> None:
        self.consumer = consumer
        self.rejoin = rejoin
        self.blocked = blocked
        self.missing = frozenset[str]()
        self._ids: dict[str, str] = {}
        self._absent: dict[str, int] = {}
        self._next_check = 0.0
        consumer._client.cluster.add_listener(self._on_metadata)

    async def ids(self, names: Iterable[str]) -> dict[str, str]:
        """The ids of topics, kept as those of the assignment. Raises KafkaError."""
        wanted = {*names}
        found = await topic_ids(self.consumer._client, wanted | {*self.consumer.subscription()})
        self._note(found)
        return {name: id for name, id in found.items() if name in wanted}

    async def check(self) -> None:
        """Report missing topics, and rejoin if a topic was recreated."""
        self._check_missing()
        now = asyncio.get_running_loop().time()
        if now < self._next_check:
            return
        self._next_check = now + IDS_SECONDS
        try:
            seen = await topic_ids(self.consumer._client, self.consumer.subscription())
        except KafkaError:
            return  # until the next check
        if self._note(seen):
            self.rejoin()

    def _note(self, seen: dict[str, str]) -> bool:
        """Keep the ids; log recreated topics and return whether there are any."""
        recreated = [n for n, id in seen.items() if is_other_topic(self._ids.get(n, ""), id)]
        self._ids |= seen
        for name in recreated:
            logger.error("topic %s was recreated: its partitions are assigned again", name)
        return bool(recreated)

    def _check_missing(self) -> None:
        cluster = self.consumer._client.cluster
        read = self.consumer.subscription()
        absent = [name for name in read if not cluster.partitions_for_topic(name)]
        self._absent = {name: self._absent.get(name, 0) + 1 for name in absent}
        if absent:
            self.consumer._client.force_metadata_update()
        # A new client knows no topics at first.
        missing = frozenset(name for name, count in self._absent.items() if count >= MISSING_CHECKS)
        for name in sorted(missing - self.missing):
            logger.error(
                "topic %s does not exist (was it deleted?): this worker waits for it; if the "
                "broker does not create topics automatically, create it", name,
            )  # fmt: skip
        for name in sorted(self.missing - missing):
            if name in read:
                logger.warning("topic %s exists again", name)
        self.missing = missing
        self.blocked.pop(TOPICS, None)
        if missing:
            self.blocked[TOPICS] = f"does not exist: {', '.join(sorted(missing))}"

    def _on_metadata(self, cluster: Any) -> None:
        """Called by aiokafka when its metadata is refreshed, for example after a failed fetch."""
        self._next_check = 0.0
