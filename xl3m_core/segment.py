"""Segment, and what it is made of: plain values that can be stored.

A record is a line together with the lines that continue it (see `records`). A segment is a run of
whole records within a token budget; it begins with the last records of the segment before it, the
overlap. The tail is what is not yet a segment.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

TokenCounter = Callable[[Sequence[str]], list[int]]
"""The number of tokens of each text."""
Line = tuple[str, int | None]
"""A line's text and its time in milliseconds since the epoch, if known."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A whole line, or a piece of a line too long for a segment; it is never cut again. `time_ms`
    is the time of its record, which is that of the record's first line."""

    text: str
    tokens: int
    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the stream with one score per question.

    Offsets count from the start of the stream, half open: `start`/`end` in characters,
    `start_token`/`end_token` in the model's tokens, with each line tokenised alone. Times are the
    earliest and the latest of its records, in milliseconds since the epoch.
    """

    index: int
    text: str
    start: int
    end: int
    start_token: int
    end_token: int
    start_ms: int | None = None
    end_ms: int | None = None

    @property
    def tokens(self) -> int:
        """The number of tokens in the segment."""
        return self.end_token - self.start_token


@dataclass(frozen=True, slots=True)
class Tail:
    """What was read of a stream and is not yet a segment.

    `units` begin at character `start` and token `start_token`; the first `overlap_units` of them
    are already part of segment `index - 1`. `partial` is a line without its end, whose first part
    arrived at `partial_ms`.
    """

    index: int = 0
    start: int = 0
    start_token: int = 0
    units: tuple[Unit, ...] = ()
    overlap_units: int = 0
    partial: str = ""
    partial_ms: int | None = None

    @property
    def end(self) -> int:
        """The number of characters read of the stream."""
        return self.start + sum(len(unit.text) for unit in self.units) + len(self.partial)

    @property
    def unsegmented(self) -> int:
        """The number of characters that are in no segment yet."""
        return sum(len(unit.text) for unit in self.units[self.overlap_units :]) + len(self.partial)
