"""Topic monitor: sees when a topic that is read is deleted, is there again, or is another one.

aiokafka asks for metadata every five minutes, and takes a topic that was created again for the one
it knew. So missing topics are asked for until they are back, and the ids of the others are compared
with those of the last assignment. Knows aiokafka's consumer, names and ids; not offsets.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka.errors import KafkaError

from stream_app.kafka.fetcher import TOPICS
from stream_app.kafka.topic_ids import is_other_topic, topic_ids

logger = logging.getLogger("xl3m")

IDS_SECONDS = 15.0
"""Between two looks at the ids, unless the client's metadata was just renewed."""

LOOKS = 3
"""A topic is missing when it was not there at so many looks, one after the other."""


class TopicMonitor:
    """One per consumer, on its thread. missing: topics that are read and not there; rejoin: has
    partitions taken over anew; blocked: what waits for a person, and why, as /readyz says it."""

    def __init__(self, consumer: Any, rejoin: Callable[[], None], blocked: dict[str, str]) -> None:
        self.consumer = consumer
        self.rejoin = rejoin
        self.blocked = blocked
        self.missing = frozenset[str]()
        self._ids: dict[str, str] = {}
        self._unseen: dict[str, int] = {}
        self._look_at = 0.0
        consumer._client.cluster.add_listener(self._on_metadata)

    async def ids(self, names: Iterable[str]) -> dict[str, str]:
        """Of each topic its id, to be remembered as that of the assignment. Raises KafkaError."""
        wanted = {*names}
        found = await topic_ids(self.consumer._client, wanted | {*self.consumer.subscription()})
        self._note(found)
        return {name: id for name, id in found.items() if name in wanted}

    async def look(self) -> None:
        """See which topics are missing, and whether any is another one by now."""
        self._look_for_missing()
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return
        self._look_at = now + IDS_SECONDS
        try:
            seen = await topic_ids(self.consumer._client, self.consumer.subscription())
        except KafkaError:
            return  # the next time
        if self._note(seen):
            self.rejoin()

    def _note(self, seen: dict[str, str]) -> bool:
        """Remember the ids; whether any topic is another one by now, which is said."""
        others = [n for n, id in seen.items() if is_other_topic(self._ids.get(n, ""), id)]
        self._ids |= seen
        for name in others:
            logger.error(
                "topic %s was deleted and created again: its partitions are taken over anew", name
            )
        return bool(others)

    def _look_for_missing(self) -> None:
        cluster = self.consumer._client.cluster
        read = self.consumer.subscription()
        unseen = [name for name in read if not cluster.partitions_for_topic(name)]
        self._unseen = {name: self._unseen.get(name, 0) + 1 for name in unseen}
        if unseen:
            self.consumer._client.force_metadata_update()
        # At first the client knows of none.
        missing = frozenset(name for name, looks in self._unseen.items() if looks >= LOOKS)
        for name in sorted(missing - self.missing):
            logger.error(
                "topic %s is not there (was it deleted?): this worker waits for it; if the broker "
                "creates no topics by itself, create it", name,
            )  # fmt: skip
        for name in sorted(self.missing - missing):
            if name in read:
                logger.warning("topic %s is there again", name)
        self.missing = missing
        self.blocked.pop(TOPICS, None)
        if missing:
            self.blocked[TOPICS] = f"not there: {', '.join(sorted(missing))}"

    def _on_metadata(self, cluster: Any) -> None:
        """Called by aiokafka when its metadata is renewed, as after a fetch that was refused."""
        self._look_at = 0.0
