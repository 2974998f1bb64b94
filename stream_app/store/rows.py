"""Rows: what is stored of a segment for a question: its own score, a flag, and its raw numbers.

The raw numbers are kept so that another measure needs no model. A row that is read never changes.
lua/rows.lua reads the same form within Redis.
"""

import math
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from stream_app.store import keys as layout
from xl3m_core.features import FEATURE_BYTES, Features, pack, unpack
from xl3m_core.relevance import DIGITS
from xl3m_core.smoothing import REACH, WEIGHTS, smoothed

_HEAD = struct.Struct("<iB")
ROW_BYTES = _HEAD.size + FEATURE_BYTES
_UNIT = 10**DIGITS
"""Scores are rounded to so many digits, and stored as integers: exact at any size."""
_LEAST, _MOST = -(2**31), 2**31 - 1


class Flag(IntEnum):
    """What is known of a segment. A row of zeros, which Redis puts in gaps, is UNREAD."""

    UNREAD = 0
    READ = 1
    SMOOTHED = 2
    """Read; its final score is a mean over its neighbours."""
    SKIPPED = 3
    """Deleted from the log before it was read."""
    UNSMOOTHED = 4
    """Read; running text, which its measure does not smooth, but another one may."""

    @property
    def is_read(self) -> bool:
        """Whether the row has a score."""
        return self in (Flag.READ, Flag.SMOOTHED, Flag.UNSMOOTHED)


_READ = re.compile(rb"[\x01\x02\x04]")
_UNSETTLED = re.compile(
    b"(?:%b)\x02|\x02(?=.{0,%d}(?:\0|\\Z))"
    % (b"|".join(b"(?<=\0%b)" % (b"." * between) for between in range(REACH)), REACH - 1),
    re.DOTALL,
)
"""A segment that is smoothed, with an unread one within its reach."""


def flag_of(*, is_running_text: bool, is_smoothed: bool) -> Flag:
    """The flag of a segment that was read."""
    if is_smoothed:
        return Flag.SMOOTHED
    return Flag.UNSMOOTHED if is_running_text else Flag.READ


def pack_row(score: float, flag: Flag, features: Features) -> bytes:
    """A row. score: the segment's own; -inf: it has none."""
    units = _LEAST if score == -math.inf else max(_LEAST + 1, min(round(score * _UNIT), _MOST))
    return _HEAD.pack(units, flag) + pack(features)


def row_arguments() -> dict[str, Any]:
    """The arguments of scripts that begin with rows.lua."""
    return {"row_bytes": ROW_BYTES, "block_size": layout.ROWS_PER_BLOCK, "weights": WEIGHTS}


SKIPPED_ROW = pack_row(-math.inf, Flag.SKIPPED, Features(math.nan))


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of the segments from `start` on; those outside are unread."""

    start: int = 0
    data: bytes = b""

    @property
    def stop(self) -> int:
        """The index behind the last row."""
        return self.start + len(self.data) // ROW_BYTES

    def flag(self, index: int) -> Flag:
        """What is known of the segment."""
        return Flag(self._head(index)[1])

    def score(self, index: int) -> float | None:
        """The segment's own score; None if it has none."""
        units, flag = self._head(index)
        return units / _UNIT if Flag(flag).is_read and units > _LEAST else None

    def final_score(self, index: int) -> float | None:
        """The segment's score, averaged over those of its neighbours that are read if its flag says
        so; None if it has none."""
        own = self.score(index)
        if own is None or self.flag(index) is not Flag.SMOOTHED:
            return own
        return smoothed(index, self.score)

    def features(self, index: int) -> Features:
        """The raw numbers of a segment that is read."""
        at = (index - self.start) * ROW_BYTES + _HEAD.size
        return unpack(self.data[at : at + FEATURE_BYTES])

    def read(self) -> Iterator[int]:
        """The segments that are read, in order."""
        return self._with_flag(_READ)

    def unsettled(self) -> Iterator[int]:
        """The segments whose final score may change, in order: those that are smoothed and have a
        neighbour that is not read. Such a one may also be deleted from the log."""
        return self._with_flag(_UNSETTLED)

    def followed_by(self, rows: Iterable[bytes]) -> "Rows":
        """These rows and more of them."""
        return Rows(self.start, self.data + b"".join(rows))

    def _with_flag(self, pattern: re.Pattern[bytes]) -> Iterator[int]:
        flags = self.data[_HEAD.size - 1 :: ROW_BYTES]
        return (self.start + found.start() for found in pattern.finditer(flags))

    def _head(self, index: int) -> tuple[int, int]:
        at = (index - self.start) * ROW_BYTES
        if not 0 <= at < len(self.data):
            return _LEAST, Flag.UNREAD
        return _HEAD.unpack_from(self.data, at)
