"""Text in any chunks -> completed segments. The first step of the method.

A record is a line, with those behind it that go on with it (`records`). A segment is a run of
whole records that fits a token budget and begins with the last records of the one before it (the
overlap). What is not yet a segment is the tail, a plain value that can be stored and taken up
again. Knows a token counter, no model.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from xl3m_core.records import AUTO, RecordStart, record_start

TokenCounter = Callable[[Sequence[str]], list[int]]
Line = tuple[str, int | None]
"""A line's text and its time in milliseconds since the epoch, if known."""

# A line this many characters a token long is cut without waiting for its end. Twice the
# usual four: only text that a tokenizer packs unusually well is cut for its characters.
CHARS_PER_TOKEN = 8
# Where to cut it is guessed this many times; then by halves, whatever the text does to guesses.
GUESSES = 6


@dataclass(frozen=True, slots=True)
class Unit:
    """A whole line, or a piece of one too long for a segment; never cut again. `time_ms` is the
    time of the record, which is that of its first line."""

    text: str
    tokens: int
    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the stream that is scored as one.

    Offsets count from the start of the stream, half open: `start`/`end` in characters,
    `start_token`/`end_token` in the model's tokens, lines tokenised one by one.
    Times are the earliest and the latest of its records, in milliseconds since the epoch.
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
    overlap, already part of segment `index - 1`. `partial` is the line still being written, begun
    at `partial_ms`.
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
        """How many characters the stream has given so far."""
        return self.start + sum(len(unit.text) for unit in self.units) + len(self.partial)

    @property
    def unsegmented(self) -> int:
        """How many of them are in no segment yet."""
        return sum(len(unit.text) for unit in self.units[self.overlap_units :]) + len(self.partial)


class Segmenter:
    """Cuts a stream of text into segments; the same text in any chunks gives the same ones. A
    record longer than a segment is cut between its lines; a line that is, at any character."""

    def __init__(
        self,
        count: TokenCounter,
        segment_tokens: int,
        overlap_tokens: int = 0,
        records: str = AUTO,
    ) -> None:
        if not 0 <= overlap_tokens < segment_tokens:
            raise ValueError(f"need 0 <= overlap ({overlap_tokens}) < segment ({segment_tokens})")
        self.count = count
        self.segment_tokens = segment_tokens
        self.overlap_tokens = overlap_tokens
        self.begins: RecordStart = record_start(records)
        self.longest_line = segment_tokens * CHARS_PER_TOKEN

    def push(self, tail: Tail, text: str, time_ms: int | None = None) -> tuple[Tail, list[Segment]]:
        """Take in the next chunk: the new tail, and the segments it completed."""
        return self.extend(tail, [(text, time_ms)])

    def extend(
        self, tail: Tail, chunks: Iterable[tuple[str, int | None]]
    ) -> tuple[Tail, list[Segment]]:
        """`push` of each (text, time_ms) in turn, their lines counted together."""
        units, lines = list[Unit](), list[Line]()
        partial, began_ms = tail.partial, tail.partial_ms
        for text, time_ms in chunks:
            began_ms = began_ms if partial else time_ms
            *ended, partial = (partial + text).split("\n")
            for line in ended:
                lines.append((line + "\n", began_ms))
                began_ms = time_ms
            if pieces := self._pieces(partial, began_ms, self.longest_line):
                units += self._units(lines) + pieces
                lines.clear()
                partial = partial[sum(len(piece.text) for piece in pieces) :]
        tail, segments = self._pack(tail, units + self._units(lines))
        return replace(tail, partial=partial, partial_ms=began_ms if partial else None), segments

    def batches(
        self, chunks: Iterable[str | Sequence[Line]], tokens: int
    ) -> Iterator[list[Segment]]:
        """The segments of a whole text, given in chunks, or as lines with their times: so many
        tokens of them or more at a time, and the rest; never none."""
        tail, pending = Tail(), list[Segment]()
        for chunk in chunks:
            tail, new = self.extend(tail, [(chunk, None)] if isinstance(chunk, str) else chunk)
            pending += new
            if sum(segment.tokens for segment in pending) >= tokens:
                yield pending
                pending = []
        if pending := pending + self.flush(tail):
            yield pending

    def flush(self, tail: Tail) -> list[Segment]:
        """The segments the tail would make if the stream ended here; the tail stays as it is."""
        rest = [(tail.partial, tail.partial_ms)] if tail.partial else []
        tail, segments = self._pack(tail, self._units(rest))
        return segments + (
            [_OpenSegment(tail).segment()] if len(tail.units) > tail.overlap_units else []
        )

    def _units(self, lines: Sequence[Line]) -> list[Unit]:
        """Whole lines as units; those too long for a segment in pieces."""
        short = list({text: None for text, _ in lines if len(text) < self.longest_line})
        counts = dict(zip(short, self.count(short), strict=True)) if short else {}
        units = list[Unit]()
        for text, time_ms in lines:
            tokens = counts.get(text, self.segment_tokens + 1)
            if tokens <= self.segment_tokens:
                units.append(Unit(text, max(tokens, 1), time_ms))
            else:
                units += self._pieces(text, time_ms)
        return units

    def _pieces(self, text: str, time_ms: int | None, least: int = 1) -> list[Unit]:
        """What of the text is cut off in pieces, while `least` characters or more are left."""
        pieces, start = list[Unit](), 0
        while len(text) - start >= least:
            pieces.append(self._piece(text[start : start + self.longest_line], time_ms))
            start += len(pieces[-1].text)
        return pieces

    def _piece(self, text: str, time_ms: int | None) -> Unit:
        """A start of `text` that about fills a segment, and fits it; all of it, if that fits.

        The text is never longer than `longest_line`, so that where a line is cut does not
        depend on how much of it had arrived.
        """
        first = self.count([text[: self.segment_tokens]])[0]
        if len(text) < self.longest_line and first <= 2 * self.segment_tokens:
            tokens = self.count([text])[0]
            if tokens <= self.segment_tokens:
                return Unit(text, max(tokens, 1), time_ms)
        size, tokens = self._fitting(text, first)
        return Unit(text[:size], max(tokens, 1), time_ms)

    def _fitting(self, text: str, found: int) -> tuple[int, int]:
        """How many characters about fill a segment, and their tokens; `found`: those of as many
        characters as a segment has tokens. From few to more, so that what is counted is not
        much more than what is cut off, however dense the text."""
        size, fits, over = min(len(text), self.segment_tokens), (0, 0), len(text) + 1
        for guess in count(1):
            if found <= self.segment_tokens:
                fits = size, found
            else:
                over = size
            if over <= 1:  # a single character is never cut
                return 1, found
            about_full = 4 * fits[1] > 3 * self.segment_tokens or fits[0] + 1 >= over
            if about_full or (fits[0] and guess >= GUESSES):
                return fits
            by_share = size * self.segment_tokens // max(found, 1)
            size = min(max(by_share, fits[0] + 1), over - 1) if guess < GUESSES else over // 2
            found = self.count([text[:size]])[0]
        raise AssertionError("unreachable")

    def _pack(self, tail: Tail, fresh: Iterable[Unit]) -> tuple[Tail, list[Segment]]:
        """Put units behind the tail's; whenever one does not fit, a segment is complete."""
        segments, open_ = list[Segment](), _OpenSegment(tail)
        for unit in fresh:
            if open_.units and unit.time_ms != (time_ms := open_.units[-1].time_ms):
                unit = self._timed(open_, unit, time_ms)
            if open_.tokens + unit.tokens > self.segment_tokens:
                segments += self._cut(open_, unit)
            open_.units.append(unit)
            open_.tokens += unit.tokens
        return open_.tail(), segments

    def _timed(self, open_: "_OpenSegment", unit: Unit, time_ms: int | None) -> Unit:
        """The unit with its record's time, unless the record is cut before it: else a text that
        never begins a record would stay at its first line's time for ever."""
        if time_ms is None or self._begins(open_.units, unit):
            return unit
        is_full = open_.tokens + unit.tokens > self.segment_tokens
        return (
            unit
            if is_full and self._record(open_, unit) == len(open_.units)
            else replace(unit, time_ms=time_ms)
        )

    def _cut(self, open_: "_OpenSegment", unit: Unit) -> list[Segment]:
        """Make room for a unit that does not fit: complete a segment, if there is anything new
        for it, and keep the overlap. The record that the unit goes on with stays whole."""
        begins = self._begins(open_.units, unit)
        record = [] if begins else open_.take(self._record(open_, unit))
        segments, room = list[Segment](), self.segment_tokens - unit.tokens
        if record:
            room -= sum(each.tokens for each in record)
        if len(open_.units) > open_.seen:
            segments.append(open_.segment())
            open_.index += 1
        elif record:  # at once, so that a record is not looked through for each of its lines
            room = 0
        open_.keep(min(self.overlap_tokens, room), self._begins if begins or record else None)
        open_.give(record)
        return segments

    def _record(self, open_: "_OpenSegment", unit: Unit) -> int:
        """Where among the units the record begins that `unit` goes on with; behind them all if
        that is too long for a segment."""
        at, tokens, begins = len(open_.units), unit.tokens, False
        while not begins and at > open_.seen and tokens <= self.segment_tokens:
            at -= 1
            tokens += open_.units[at].tokens
            begins = at == 0 or self._begins(open_.units[at - 1 : at], open_.units[at])
        return at if begins and tokens <= self.segment_tokens else len(open_.units)

    def _begins(self, before: Sequence[Unit], unit: Unit) -> bool:
        """Whether the unit begins a record, or is the next piece of a line too long for one."""
        return not (before and before[-1].text.endswith("\n")) or self.begins(unit.text)


class _OpenSegment:
    """A tail's units while others are put behind them."""

    def __init__(self, tail: Tail) -> None:
        self.index, self.start, self.start_token = tail.index, tail.start, tail.start_token
        self.units, self.seen = list(tail.units), tail.overlap_units
        self.tokens = sum(unit.tokens for unit in tail.units)

    def take(self, at: int) -> list[Unit]:
        """Take out the units from there on."""
        taken = self.units[at:]
        del self.units[at:]
        self.tokens -= sum(unit.tokens for unit in taken)
        return taken

    def give(self, units: Sequence[Unit]) -> None:
        """Put units behind the others."""
        self.units += units
        self.tokens += sum(unit.tokens for unit in units)

    def keep(self, tokens: int, begins: Callable[[Sequence[Unit], Unit], bool] | None) -> None:
        """Drop units from the front until no more than so many tokens are left, and the first of
        them `begins` a record: the overlap."""
        drop, units = 0, self.units
        while drop < len(units) and (
            self.tokens > max(0, tokens)
            or (begins and drop and not begins(units[drop - 1 : drop], units[drop]))
        ):
            self.tokens -= units[drop].tokens
            self.start_token += units[drop].tokens
            self.start += len(units[drop].text)
            drop += 1
        del units[:drop]
        self.seen = len(units)

    def segment(self) -> Segment:
        """The units as the segment they complete."""
        text = "".join(unit.text for unit in self.units)
        times = [unit.time_ms for unit in self.units if unit.time_ms is not None]
        return Segment(
            index=self.index,
            text=text,
            start=self.start,
            end=self.start + len(text),
            start_token=self.start_token,
            end_token=self.start_token + self.tokens,
            start_ms=min(times, default=None),
            end_ms=max(times, default=None),
        )

    def tail(self) -> Tail:
        """The units as a tail; nothing of an unfinished record."""
        return Tail(self.index, self.start, self.start_token, tuple(self.units), self.seen)
