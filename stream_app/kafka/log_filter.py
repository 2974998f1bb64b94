"""KafkaLog: what of aiokafka's own log is left out.

Requests, since passwords and tokens stand in them; and what is no fault on a broker where topics
and groups are new, unless it goes on. Knows aiokafka's loggers; nothing of what they tell.
"""

import logging
import time

from stream_app.kafka.connection import FATAL

PASSING_SECONDS = 15.0


class Passing(logging.Filter):
    """Lets a message through that has come for a while: it did not pass by itself."""

    def __init__(self, *messages: str) -> None:
        super().__init__()
        self.messages = messages
        self._since: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be written."""
        if not str(record.msg).startswith(self.messages):
            return True
        now = time.monotonic()
        return now - self._since.setdefault(record.getMessage(), now) >= PASSING_SECONDS


_NEW = {
    "aiokafka.cluster": Passing("Topic %s not found", "Topic %s is not available during"),
    "aiokafka.consumer.group_coordinator": Passing("Group Coordinator Request failed"),
    "aiokafka.producer.sender": Passing("FindCoordinator Request failed"),
}


def quieten() -> None:
    """From now on; called again it changes nothing."""
    logging.getLogger("aiokafka.conn").addFilter(_without_requests)
    logging.getLogger("stream_app.kafka.consumer_thread").addFilter(_without_refusals)
    for name, passing in _NEW.items():
        logging.getLogger(name).addFilter(passing)


def _without_requests(record: logging.LogRecord) -> bool:
    """At debug level aiokafka writes down each request, those with passwords and tokens too."""
    return record.levelno > logging.DEBUG


def _without_refusals(record: logging.LogRecord) -> bool:
    """A commit that is refused for good ends the worker with a line that says what to do: Faust's
    traceback of it says no more."""
    return not (record.exc_info and isinstance(record.exc_info[1], FATAL))
