"""Filters for aiokafka's log.

They drop requests, which contain passwords and tokens, and messages that are normal while topics
and groups are new, unless they persist.
"""

import logging
import time

from stream_app.kafka.connection import FATAL

PERSISTENT_SECONDS = 15.0


class PersistentOnly(logging.Filter):
    """Drops messages that begin with one of `messages`, until they have come for a while."""

    def __init__(self, *messages: str) -> None:
        super().__init__()
        self.messages = messages
        self._since: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the record."""
        if not str(record.msg).startswith(self.messages):
            return True
        now = time.monotonic()
        return now - self._since.setdefault(record.getMessage(), now) >= PERSISTENT_SECONDS


_STARTING = {
    "aiokafka.cluster": PersistentOnly("Topic %s not found", "Topic %s is not available during"),
    "aiokafka.consumer.group_coordinator": PersistentOnly("Group Coordinator Request failed"),
    "aiokafka.producer.sender": PersistentOnly("FindCoordinator Request failed"),
}


def install() -> None:
    """Install the filters; calling it again changes nothing."""
    logging.getLogger("aiokafka.conn").addFilter(_without_requests)
    logging.getLogger("stream_app.kafka.consumer_thread").addFilter(_without_refusals)
    for name, persistent in _STARTING.items():
        logging.getLogger(name).addFilter(persistent)


def _without_requests(record: logging.LogRecord) -> bool:
    """At debug level aiokafka logs each request, including those with passwords and tokens."""
    return record.levelno > logging.DEBUG


def _without_refusals(record: logging.LogRecord) -> bool:
    """A fatal error of a commit ends the worker with a line that says what to do; Faust's
    traceback adds nothing to it."""
    return not (record.exc_info and isinstance(record.exc_info[1], FATAL))
