"""FetchState: a worker's fetch settings, and the partitions that wait for an operator."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stream_app.kafka.record_batch import UnreadableRange
from stream_app.settings import IsolationLevel, Unreadable
from stream_app.settings.variables import variable

logger = logging.getLogger("xl3m")

POLL_BYTES = 16 << 20
"""After this many decompressed bytes a poll decompresses no further batch."""
RETRY_SECONDS = 30.0
"""Time after which a waiting partition is fetched again."""
TOPICS = "topics"
"""Key in `blocked` for missing topics; the other keys are partitions and "group"."""


@dataclass
class FetchState:
    """A worker's fetch settings and state; used on the consumer's thread.

    blocked: partitions that wait for an operator, with the reason. out_of_range: called with an
    offset that a partition does not have. decompression_budget: bytes that the current poll may
    still decompress.
    """

    max_batch_bytes: int = 64 << 20
    isolation_level: IsolationLevel = "read_committed"
    unreadable: Unreadable = "skip"
    blocked: dict[str, str] = field(default_factory=dict)
    out_of_range: Callable[[Any, int], None] = lambda tp, offset: None
    decompression_budget: int = POLL_BYTES
    assignment: Callable[[], Any] = lambda: None

    def partition_state(self, tp: Any) -> Any:
        """aiokafka's state of a partition; None if it is not assigned."""
        assignment = self.assignment()
        return assignment.state_value(tp) if assignment and tp in assignment.tps else None

    def highwater(self, tp: Any) -> int | None:
        """The end of the partition at the last fetch."""
        state = self.partition_state(tp)
        return None if state is None else state.highwater

    def block(self, tp: Any, unreadable: UnreadableRange) -> None:
        """Pause a partition at an unreadable range, and fetch it again after RETRY_SECONDS."""
        name, state = f"{tp.topic}/{tp.partition}", self.partition_state(tp)
        self.blocked[name] = f"waits at offset {unreadable.begin}: {unreadable.reason}"
        logger.error(
            "%s %s; other partitions are not affected. %s=skip skips the offset.",
            name, self.blocked[name], variable("unreadable"),
        )  # fmt: skip
        if state is not None:
            state.pause()
            loop = asyncio.get_running_loop()
            loop.call_later(RETRY_SECONDS, lambda: state.paused and state.resume())

    def unblock(self, tp: Any) -> None:
        """Note that the partition no longer waits."""
        if self.blocked.pop(f"{tp.topic}/{tp.partition}", None):
            logger.warning("%s/%d continues", tp.topic, tp.partition)

    def forget_others(self, assigned: Any) -> None:
        """Unblock partitions that are no longer assigned."""
        names = {f"{tp.topic}/{tp.partition}" for tp in assigned}
        blocked = {*list(self.blocked)}  # a copy: another thread may add to it meanwhile
        for name in blocked - names - {TOPICS}:
            self.blocked.pop(name, None)
