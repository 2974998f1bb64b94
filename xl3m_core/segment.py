"""Text in any chunks -> completed segments. The first step of the method.

A record is a line. A segment is a run of whole records that fits a token budget and begins
with the last records of the one before it (the overlap). What is not yet a segment is the
tail, a plain value that can be stored and taken up again. Knows a token counter, no model.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

TokenCounter = Callable[[Sequence[str]], list[int]]

# A record this many characters a token long is cut without waiting for its end. Twice the
# usual four: only text that a tokenizer packs unusually well is cut for its characters.
CHARS_PER_TOKEN = 8


@dataclass(frozen=True, slots=True)
class Unit:
    """A whole record, or a piece of one too long for a segment; never cut again."""

    text: str
    tokens: int
    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the stream that is scored as one.

    Offsets count from the start of the stream, half open: `start`/`end` in characters,
    `start_token`/`end_token` in the model's tokens, records tokenised one by one.
    Times are those of its first and last records, in milliseconds since the epoch.
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
        """How many tokens the segment holds."""
        return self.end_token - self.start_token


@dataclass(frozen=True, slots=True)
class Tail:
    """What a stream has read and not yet made a segment of.

    `units` begin at character `start` and token `start_token`; the first `seen` of them are
    overlap, already part of segment `index - 1`. `partial` is the record still being written,
    begun at `partial_ms`.
    """

    index: int = 0
    start: int = 0
    start_token: int = 0
    units: tuple[Unit, ...] = ()
    seen: int = 0
    partial: str = ""
    partial_ms: int | None = None

    @property
    def end(self) -> int:
        """How many characters the stream has given so far."""
        return self.start + sum(len(unit.text) for unit in self.units) + len(self.partial)


class Segmenter:
    """Cuts a stream of text into segments; the same text in any chunks gives the same ones."""

    def __init__(self, count: TokenCounter, segment_tokens: int, overlap_tokens: int = 0) -> None:
        if not 0 <= overlap_tokens < segment_tokens:
            raise ValueError(f"need 0 <= overlap ({overlap_tokens}) < segment ({segment_tokens})")
        self.count = count
        self.segment_tokens = segment_tokens
        self.overlap_tokens = overlap_tokens
        self.longest_record = segment_tokens * CHARS_PER_TOKEN

    def push(self, tail: Tail, text: str, time_ms: int | None = None) -> tuple[Tail, list[Segment]]:
        """Take in the next chunk: the new tail, and the segments it completed."""
        began_ms = tail.partial_ms if tail.partial else time_ms
        *lines, rest = (tail.partial + text).split("\n")
        units = self._records([line + "\n" for line in lines], began_ms, time_ms)
        rest_ms = time_ms if lines else began_ms
        while len(rest) >= self.longest_record:
            piece = self._piece(rest)
            units.append(Unit(piece.text, piece.tokens, rest_ms))
            rest = rest[len(piece.text) :]
        tail, segments = self._pack(tail, units)
        return replace(tail, partial=rest, partial_ms=rest_ms if rest else None), segments

    def batches(self, chunks: Iterable[str], tokens: int) -> Iterator[list[Segment]]:
        """The segments of a whole text, given in chunks: so many tokens of them or more at a
        time, and the rest; never none."""
        tail, pending = Tail(), list[Segment]()
        for chunk in chunks:
            tail, new = self.push(tail, chunk)
            pending += new
            if sum(segment.tokens for segment in pending) >= tokens:
                yield pending
                pending = []
        if pending := pending + self.flush(tail):
            yield pending

    def flush(self, tail: Tail) -> list[Segment]:
        """The segments the tail would make if the stream ended here; the tail stays as it is."""
        rest = [tail.partial] if tail.partial else []
        tail, segments = self._pack(tail, self._records(rest, tail.partial_ms, tail.partial_ms))
        return segments + ([_segment(tail)] if len(tail.units) > tail.seen else [])

    def _records(
        self, records: list[str], first_ms: int | None, later_ms: int | None
    ) -> list[Unit]:
        """Whole records as units; those too long for a segment in pieces."""
        units: list[Unit] = []
        counts = self.count(records) if records else []
        for i, (record, tokens) in enumerate(zip(records, counts, strict=True)):
            time_ms = later_ms if i else first_ms
            if tokens <= self.segment_tokens and len(record) < self.longest_record:
                units.append(Unit(record, max(tokens, 1), time_ms))
            else:
                units += [replace(piece, time_ms=time_ms) for piece in self._pieces(record)]
        return units

    def _pieces(self, record: str) -> Iterator[Unit]:
        """A record too long for a segment, in order, each piece as long as fits."""
        start = 0
        while start < len(record):
            piece = self._piece(record[start : start + self.longest_record])
            yield piece
            start += len(piece.text)

    def _piece(self, text: str) -> Unit:
        """The longest start of `text` that fits a segment.

        Looks at `longest_record` characters and no further, so that where a record is cut
        does not depend on how much of it had arrived.
        """
        text = text[: self.longest_record]

        def tokens(chars: int) -> int:
            return self.count([text[:chars]])[0]

        if tokens(len(text)) > self.segment_tokens:
            fitting = bisect_right(range(1, len(text)), self.segment_tokens, key=tokens)
            text = text[: max(fitting, 1)]
        return Unit(text, max(tokens(len(text)), 1))

    def _pack(self, tail: Tail, fresh: list[Unit]) -> tuple[Tail, list[Segment]]:
        """Put units behind the tail's; whenever one does not fit, a segment is complete."""
        segments: list[Segment] = []
        for unit in fresh:
            if _tokens(tail.units) + unit.tokens > self.segment_tokens:
                if len(tail.units) > tail.seen:
                    segments.append(_segment(tail))
                    tail = replace(tail, index=tail.index + 1)
                tail = self._keep_overlap(tail, self.segment_tokens - unit.tokens)
            tail = replace(tail, units=(*tail.units, unit))
        return tail, segments

    def _keep_overlap(self, tail: Tail, room: int) -> Tail:
        """Drop units from the front until what is left is overlap and leaves room for the next."""
        limit = max(0, min(self.overlap_tokens, room))
        drop, tokens = 0, _tokens(tail.units)
        while tokens > limit:
            tokens -= tail.units[drop].tokens
            drop += 1
        dropped, kept = tail.units[:drop], tail.units[drop:]
        return replace(
            tail,
            start=tail.start + sum(len(unit.text) for unit in dropped),
            start_token=tail.start_token + _tokens(dropped),
            units=kept,
            seen=len(kept),
        )


def _tokens(units: Sequence[Unit]) -> int:
    return sum(unit.tokens for unit in units)


def _segment(tail: Tail) -> Segment:
    """The tail's units as the segment they complete."""
    text = "".join(unit.text for unit in tail.units)
    times = [unit.time_ms for unit in tail.units if unit.time_ms is not None]
    return Segment(
        index=tail.index,
        text=text,
        start=tail.start,
        end=tail.start + len(text),
        start_token=tail.start_token,
        end_token=tail.start_token + _tokens(tail.units),
        start_ms=min(times, default=None),
        end_ms=max(times, default=None),
    )
