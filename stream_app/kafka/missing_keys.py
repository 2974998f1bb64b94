"""A warning about requests without a Kafka key, logged once per worker and topic."""

import logging

from stream_app.kafka.records import Message

logger = logging.getLogger("xl3m")


class MissingKeyWarning:
    """One per agent."""

    def __init__(self) -> None:
        self._is_logged = False

    def check(self, message: Message) -> None:
        """Log once if a request named its stream in a field and has no key."""
        if message.key or self._is_logged:
            return
        self._is_logged = True
        logger.warning(
            "%s/%d offset %d names its stream in a field and has no key: what is asked of one "
            "stream may lie in several partitions and be done in another order, a question be "
            "ended before it is set. Give such events the stream's name as their key.",
            message.topic, message.partition, message.offset,
        )  # fmt: skip
