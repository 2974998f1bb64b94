"""OwnedPartition: a partition that this worker owns, and how far Redis holds it."""

import logging
from dataclasses import dataclass
from typing import Any

from stream_app.store.partitions import Fence, name_of

logger = logging.getLogger("xl3m")


@dataclass(slots=True)
class OwnedPartition:
    """A partition this worker owns.

    incarnation: how often its topic was recreated. position: the first offset not in Redis; None if
    Redis holds none. expected: the next offset, if known. missing: offsets that no record stands
    for, and that no stream has counted yet. topic_id: of the topic with these offsets; empty if it
    is unknown.
    """

    topic_partition: str
    incarnation: int
    epoch: int
    position: int | None
    expected: int | None
    missing: int = 0
    topic_id: str = ""

    @property
    def name(self) -> str:
        """The name of its offsets in Redis."""
        return name_of(self.topic_partition, self.incarnation)

    @property
    def fence(self) -> Fence:
        """The fencing token for writes to the store."""
        return self.topic_partition, self.epoch

    def has(self, offset: int) -> bool:
        """Whether Redis holds the record at an offset."""
        return offset < (self.position or 0)

    def observe(self, offset: int, first_offset: int | None = None) -> None:
        """Note a record and log the offsets missing before it. first_offset: the first that the
        record stands for, if not its own."""
        first = offset if first_offset is None else first_offset
        if self.expected is not None and first > self.expected:
            self.missing += first - self.expected
            logger.error(
                "%s: offsets %d to %d are missing; the broker may have lost their records",
                self.name, self.expected, first - 1,
            )  # fmt: skip
        self.expected = max(offset + 1, self.expected or 0)

    def pop_missing(self) -> int:
        """The number of missing offsets since the last call."""
        missing, self.missing = self.missing, 0
        return missing


def partition_name(where: Any) -> str:
    """topic/partition of a message or of Faust's TP."""
    return f"{where.topic}/{where.partition}"
