"""Segmenter: text in any chunks -> completed segments. The first step of the method.

Its state is the tail, a plain value: given and returned, never kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count

from xl3m_core.records import AUTO, RecordStart, record_start
from xl3m_core.segment import Line, Segment, Tail, TokenCounter, Unit

CHARS_PER_TOKEN = 8
"""A line with this many characters for each token of a segment is cut before its end arrives.
Twice the usual four, so that few texts are cut for their characters alone."""
GUESSES = 6
"""How often the place of a cut is estimated, before the search halves the range instead."""


class Segmenter:
    """Cuts a stream of text into segments; the same text in any chunks gives the same ones.

    A record longer than a segment is cut between its lines, a line longer than a segment at any
    character. Raises ValueError for an overlap that is not shorter than a segment, or a wrong rule
    for records.
    """

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
        self.is_record_start: RecordStart = record_start(records)
        self.max_line_chars = segment_tokens * CHARS_PER_TOKEN

    def push(self, tail: Tail, text: str, time_ms: int | None = None) -> tuple[Tail, list[Segment]]:
        """The tail and the completed segments after the next chunk."""
        return self.extend(tail, [(text, time_ms)])

    def extend(
        self, tail: Tail, chunks: Iterable[tuple[str, int | None]]
    ) -> tuple[Tail, list[Segment]]:
        """`push` of several (text, time_ms), with one call of the token counter for all lines."""
        units, lines = list[Unit](), list[Line]()
        partial, partial_ms = tail.partial, tail.partial_ms
        for text, time_ms in chunks:
            partial_ms = partial_ms if partial else time_ms
            *ended, partial = (partial + text).split("\n")
            for line in ended:
                lines.append((line + "\n", partial_ms))
                partial_ms = time_ms
            if pieces := self._pieces(partial, partial_ms, self.max_line_chars):
                units += self._units(lines) + pieces
                lines.clear()
                partial = partial[sum(len(piece.text) for piece in pieces) :]
        tail, segments = self._pack(tail, units + self._units(lines))
        return replace(tail, partial=partial, partial_ms=partial_ms if partial else None), segments

    def batches(
        self, chunks: Iterable[str | Sequence[Line]], tokens: int
    ) -> Iterator[list[Segment]]:
        """The segments of a whole text, given as chunks or as lines with their times.

        Yields lists of at least `tokens` tokens, and one with the rest; none of them is empty.
        """
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
        """The segments that the tail becomes if the stream ends here."""
        lines = [(tail.partial, tail.partial_ms)] if tail.partial else []
        tail, segments = self._pack(tail, self._units(lines))
        return segments + (
            [_OpenSegment(tail).segment()] if len(tail.units) > tail.overlap_units else []
        )

    def _units(self, lines: Sequence[Line]) -> list[Unit]:
        """Units of whole lines; a line too long for a segment becomes several."""
        short = list({text: None for text, _ in lines if len(text) < self.max_line_chars})
        counts = dict(zip(short, self.count(short), strict=True)) if short else {}
        units = list[Unit]()
        for text, time_ms in lines:
            tokens = counts.get(text, self.segment_tokens + 1)
            if tokens <= self.segment_tokens:
                units.append(Unit(text, max(tokens, 1), time_ms))
            else:
                units += self._pieces(text, time_ms)
        return units

    def _pieces(self, text: str, time_ms: int | None, min_chars: int = 1) -> list[Unit]:
        """Pieces of the text from its start, while at least `min_chars` characters remain."""
        pieces, start = list[Unit](), 0
        while len(text) - start >= min_chars:
            pieces.append(self._piece(text[start : start + self.max_line_chars], time_ms))
            start += len(pieces[-1].text)
        return pieces

    def _piece(self, text: str, time_ms: int | None) -> Unit:
        """All of the text if it fits a segment, else a start of it that about fills one.

        The text is at most `max_line_chars` long, so that the place of a cut does not depend on how
        much of the line has arrived.
        """
        first = self.count([text[: self.segment_tokens]])[0]
        if len(text) < self.max_line_chars and first <= 2 * self.segment_tokens:
            tokens = self.count([text])[0]
            if tokens <= self.segment_tokens:
                return Unit(text, max(tokens, 1), time_ms)
        size, tokens = self._fitting(text, first)
        return Unit(text[:size], max(tokens, 1), time_ms)

    def _fitting(self, text: str, tokens: int) -> tuple[int, int]:
        """How many characters about fill a segment, and their tokens.

        tokens: of as many characters as a segment has tokens. The search grows from there, so that
        not many more characters are counted than are used, however dense the text is.
        """
        size, fits, over = min(len(text), self.segment_tokens), (0, 0), len(text) + 1
        for guess in count(1):
            if tokens <= self.segment_tokens:
                fits = size, tokens
            else:
                over = size
            if over <= 1:  # a single character is never cut
                return 1, tokens
            about_full = 4 * fits[1] > 3 * self.segment_tokens or fits[0] + 1 >= over
            if about_full or (fits[0] and guess >= GUESSES):
                return fits
            by_share = size * self.segment_tokens // max(tokens, 1)
            size = min(max(by_share, fits[0] + 1), over - 1) if guess < GUESSES else over // 2
            tokens = self.count([text[:size]])[0]
        raise AssertionError("unreachable")

    def _pack(self, tail: Tail, units: Iterable[Unit]) -> tuple[Tail, list[Segment]]:
        """Append units to those of the tail; each one that does not fit completes a segment."""
        segments, open_ = list[Segment](), _OpenSegment(tail)
        for unit in units:
            if open_.units and unit.time_ms != (time_ms := open_.units[-1].time_ms):
                unit = self._timed(open_, unit, time_ms)
            if open_.tokens + unit.tokens > self.segment_tokens:
                segments += self._cut(open_, unit)
            open_.units.append(unit)
            open_.tokens += unit.tokens
        return open_.tail(), segments

    def _timed(self, open_: "_OpenSegment", unit: Unit, time_ms: int | None) -> Unit:
        """The unit with the time of its record, unless the record is cut before it: otherwise a
        text that never begins a record would keep the time of its first line for ever."""
        if time_ms is None or self._begins_record(open_.units, unit):
            return unit
        is_full = open_.tokens + unit.tokens > self.segment_tokens
        return (
            unit
            if is_full and self._record(open_, unit) == len(open_.units)
            else replace(unit, time_ms=time_ms)
        )

    def _cut(self, open_: "_OpenSegment", unit: Unit) -> list[Segment]:
        """Make room for a unit that does not fit: complete a segment if there are new units, and
        keep the overlap. The record that the unit continues stays whole."""
        is_start = self._begins_record(open_.units, unit)
        record = [] if is_start else open_.split_off(self._record(open_, unit))
        segments, room = list[Segment](), self.segment_tokens - unit.tokens
        if record:
            room -= sum(each.tokens for each in record)
        if len(open_.units) > open_.overlap_units:
            segments.append(open_.segment())
            open_.index += 1
        elif record:  # at once, so that a record is not searched again for each of its lines
            room = 0
        begins_record = self._begins_record if is_start or record else None
        open_.keep_overlap(min(self.overlap_tokens, room), begins_record)
        open_.extend(record)
        return segments

    def _record(self, open_: "_OpenSegment", unit: Unit) -> int:
        """The index of the unit that begins the record which `unit` continues; the number of units
        if that record is too long for a segment."""
        start, tokens, is_found = len(open_.units), unit.tokens, False
        while not is_found and start > open_.overlap_units and tokens <= self.segment_tokens:
            start -= 1
            first = open_.units[start]
            tokens += first.tokens
            is_found = start == 0 or self._begins_record(open_.units[start - 1 : start], first)
        return start if is_found and tokens <= self.segment_tokens else len(open_.units)

    def _begins_record(self, before: Sequence[Unit], unit: Unit) -> bool:
        """Whether the unit begins a record, or continues a line that is too long for a segment;
        before: the units before it, of which the last counts."""
        return not (before and before[-1].text.endswith("\n")) or self.is_record_start(unit.text)


class _OpenSegment:
    """The units of a tail while new ones are appended."""

    def __init__(self, tail: Tail) -> None:
        self.index, self.start, self.start_token = tail.index, tail.start, tail.start_token
        self.units, self.overlap_units = list(tail.units), tail.overlap_units
        self.tokens = sum(unit.tokens for unit in tail.units)

    def split_off(self, start: int) -> list[Unit]:
        """Remove and return the units from index `start`."""
        removed = self.units[start:]
        del self.units[start:]
        self.tokens -= sum(unit.tokens for unit in removed)
        return removed

    def extend(self, units: Sequence[Unit]) -> None:
        """Append units."""
        self.units += units
        self.tokens += sum(unit.tokens for unit in units)

    def keep_overlap(
        self, tokens: int, begins_record: Callable[[Sequence[Unit], Unit], bool] | None
    ) -> None:
        """Drop units from the front until at most `tokens` tokens are left, and the first unit
        begins a record if `begins_record` is given."""
        drop, units = 0, self.units
        while drop < len(units) and (
            self.tokens > max(0, tokens)
            or (begins_record and drop and not begins_record(units[drop - 1 : drop], units[drop]))
        ):
            self.tokens -= units[drop].tokens
            self.start_token += units[drop].tokens
            self.start += len(units[drop].text)
            drop += 1
        del units[:drop]
        self.overlap_units = len(units)

    def segment(self) -> Segment:
        """The segment of all units."""
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
        """The tail of all units, without a partial line."""
        return Tail(self.index, self.start, self.start_token, tuple(self.units), self.overlap_units)
