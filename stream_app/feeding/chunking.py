"""Pieces: bytes of a file cut between its records, each with its place in the file.

The places are of the bytes as they lie in the file, so that a reading can go on from any of
them. Knows lines and encodings; no file and no event.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from xl3m_core.records import AUTO, RecordStart, record_start

# A record longer than this is sent in pieces.
MAX_RECORD_BYTES = 65_536
# So many lines of one record are looked back for its beginning.
_LINES_BACK = 200


@dataclass(frozen=True, slots=True)
class RecordRules:
    """How a file's text is cut: where a record begins, and which is so long that it is cut. whole:
    only such a record is, as a document of several lines is of no use in parts."""

    starts: RecordStart = field(default_factory=lambda: record_start(AUTO))
    max_bytes: int = 0
    keep_whole: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole records, or a part of one that is too long. source: which file it is of, for whoever
    keeps account."""

    raw: bytes
    start: int = 0
    encoding: str = "utf-8"
    source: Any = None

    @property
    def end(self) -> int:
        """The place behind it."""
        return self.start + len(self.raw)

    def text(self) -> str:
        """What it says; what is not text in this encoding is U+FFFD."""
        return self.raw.decode(self.encoding, "replace")

    def is_text(self) -> bool:
        """Whether all of it is text in its encoding."""
        try:
            self.raw.decode(self.encoding)
        except UnicodeDecodeError:
            return False
        return True

    def to_utf8(self) -> bytes:
        """The text in UTF-8; what is none stands in it as it is."""
        return self.raw if self.encoding == "utf-8" else self.text().encode()

    def slice(self, start: int, end: int) -> "Chunk":
        """The bytes from start to end, counted in this piece."""
        return Chunk(self.raw[start:end], self.start + start, self.encoding, self.source)

    def lines(self) -> Iterator["Chunk"]:
        """Each line, with what ends it."""
        start = 0
        while start < len(self.raw):
            end = line_end(self.raw, start, self.encoding) or len(self.raw)
            yield self.slice(start, end)
            start = end

    def halve(self) -> tuple["Chunk", ...]:
        """Two pieces, cut behind a line if there is one in the first half; or this one, if it is
        a single character."""
        middle = len(self.raw) // 2
        at = last_line_end(self.raw[:middle], self.encoding)
        at = at or character_start(self.raw, middle, self.encoding)
        at = at or character_start(self.raw, len(self.raw) - 1, self.encoding)
        return (self.slice(0, at), self.slice(at, len(self.raw))) if at else (self,)


class Splitter:
    """Cuts what is read of a file into pieces; a record that has no end yet is kept back."""

    def __init__(
        self,
        start: int = 0,
        encoding: str = "utf-8",
        source: Any = None,
        rules: RecordRules | None = None,
    ) -> None:
        self.offset = start
        self.encoding = encoding
        self.source = source
        rules = rules or RecordRules()
        self.starts = rules.starts
        self.longest = rules.max_bytes or MAX_RECORD_BYTES
        self.is_whole = rules.keep_whole
        self.pending = b""

    def push(self, data: bytes, more: bool = False) -> Iterator[Chunk]:
        """The records that are whole now. more: there is more to be read at once, so the last of
        them is kept back with the lines that may go on with it."""
        data = self.pending + data
        cut = last_line_end(data, self.encoding)
        if more and cut:
            cut = self._last_start(data, cut) or (0 if self.is_whole else cut)
        self.pending = data
        yield from self._cut(cut)
        while len(self.pending) >= self.longest:
            whole = last_line_end(self.pending, self.encoding)
            if not (whole := whole or _whole_characters(self.pending, self.encoding)):
                return
            yield from self._cut(whole)

    def flush(self) -> Iterator[Chunk]:
        """What was kept back."""
        yield from self._cut(len(self.pending))

    def flush_lines(self) -> Iterator[Chunk]:
        """What was kept back of whole lines."""
        yield from self._cut(last_line_end(self.pending, self.encoding))

    def _last_start(self, data: bytes, end: int) -> int:
        """Where the last record begins of those that end at this place; 0 if that is not seen."""
        for _ in range(end if self.is_whole else _LINES_BACK):
            start = last_line_end(data, self.encoding, end - 1)
            if not start:
                return 0
            if self.starts(data[start:end].decode(self.encoding, "replace")):
                return start
            end = start
        return 0

    def _cut(self, at: int) -> Iterator[Chunk]:
        if at:
            piece = Chunk(self.pending[:at], self.offset, self.encoding, self.source)
            self.offset, self.pending = piece.end, self.pending[at:]
            yield piece


def line_end(data: bytes, start: int, encoding: str) -> int:
    """The place behind the first line end from start on; 0 if there is none."""
    newline, width = "\n".encode(encoding), len("\n".encode(encoding))
    found = data.find(newline, start)
    while found >= 0 and (found - start) % width:
        found = data.find(newline, found + 1)
    return found + width if found >= 0 else 0


def last_line_end(data: bytes, encoding: str, before: int | None = None) -> int:
    """The place behind the last line end (that is whole before this place); 0 if there is none."""
    newline, width = "\n".encode(encoding), len("\n".encode(encoding))
    found = data.rfind(newline, 0, len(data) if before is None else before)
    while found >= 0 and found % width:
        found = data.rfind(newline, 0, found + width - 1)
    return found + width if found >= 0 else 0


def character_start(data: bytes, at: int, encoding: str) -> int:
    """The start of the character that the byte at this place is part of."""
    if encoding == "utf-8":
        back = at
        while back > max(at - 3, 0) and data[back] & 0xC0 == 0x80:
            back -= 1
        return back if data[back] & 0xC0 != 0x80 else at
    at -= at % 2
    high = at + (encoding == "utf-16-le")
    return at - 2 if at >= 2 and high < len(data) and 0xDC <= data[high] <= 0xDF else at


def _whole_characters(data: bytes, encoding: str) -> int:
    """How many bytes are whole characters; all, if the last can never be one."""
    if encoding != "utf-8":
        return _whole_pairs(data, high=int(encoding == "utf-16-le"))
    last = character_start(data, len(data) - 1, encoding)
    try:
        data[last:].decode(encoding)
    except UnicodeDecodeError as error:
        return last if _is_cut(error) else len(data)
    return len(data)


def _whole_pairs(data: bytes, high: int) -> int:
    """The same in UTF-16: less half a unit, and less a first of two that go together."""
    end = len(data) - len(data) % 2
    is_first = end and 0xD8 <= data[end - 2 + high] <= 0xDB
    return end - 2 if is_first else end


def _is_cut(error: UnicodeDecodeError) -> bool:
    """Whether the character may be whole with what follows: decoders name it so."""
    return error.reason in ("unexpected end of data", "truncated data")
