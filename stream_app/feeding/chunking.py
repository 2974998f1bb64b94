"""Chunking: bytes of a file, cut between its records, each chunk with its offset in the file.

The offsets are of the original bytes, so that reading can continue from any of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from xl3m_core.records import AUTO, RecordStart, record_start

# A longer record is split.
MAX_RECORD_BYTES = 65_536
# The start of a record is searched in this many lines before the cut.
_LINES_BACK = 200


@dataclass(frozen=True, slots=True)
class RecordRules:
    """How a file's text is cut. starts: tells whether a line begins a record; max_bytes: a longer
    record is split; keep_whole: a shorter one never is, since part of a document is useless."""

    starts: RecordStart = field(default_factory=lambda: record_start(AUTO))
    max_bytes: int = 0
    keep_whole: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole records, or part of one that is too long. start: offset in the file, in bytes; source:
    the checkpoint of the file."""

    raw: bytes
    start: int = 0
    encoding: str = "utf-8"
    source: Any = None

    @property
    def end(self) -> int:
        """The offset behind its last byte."""
        return self.start + len(self.raw)

    def text(self) -> str:
        """The decoded text; invalid bytes become U+FFFD."""
        return self.raw.decode(self.encoding, "replace")

    def is_text(self) -> bool:
        """Whether all of it can be decoded."""
        try:
            self.raw.decode(self.encoding)
        except UnicodeDecodeError:
            return False
        return True

    def to_utf8(self) -> bytes:
        """The text in UTF-8; bytes of a UTF-8 chunk are unchanged, even invalid ones."""
        return self.raw if self.encoding == "utf-8" else self.text().encode()

    def slice(self, start: int, end: int) -> "Chunk":
        """The bytes from start to end, relative to this chunk."""
        return Chunk(self.raw[start:end], self.start + start, self.encoding, self.source)

    def lines(self) -> Iterator["Chunk"]:
        """Each line, with its line end."""
        start = 0
        while start < len(self.raw):
            end = line_end(self.raw, start, self.encoding) or len(self.raw)
            yield self.slice(start, end)
            start = end

    def halve(self) -> tuple["Chunk", ...]:
        """Two chunks, cut behind a line end of the first half, else between characters; one chunk
        if it is a single character."""
        middle = len(self.raw) // 2
        at = last_line_end(self.raw[:middle], self.encoding)
        at = at or character_start(self.raw, middle, self.encoding)
        at = at or character_start(self.raw, len(self.raw) - 1, self.encoding)
        return (self.slice(0, at), self.slice(at, len(self.raw))) if at else (self,)


class Splitter:
    """Cuts a file's bytes into chunks; an unfinished record is kept back."""

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
        """The records that are complete now.

        more: more data follows at once, so the last record is kept back with the lines that may
        continue it.
        """
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
        """All that was kept back."""
        yield from self._cut(len(self.pending))

    def flush_lines(self) -> Iterator[Chunk]:
        """The complete lines that were kept back."""
        yield from self._cut(last_line_end(self.pending, self.encoding))

    def _last_start(self, data: bytes, end: int) -> int:
        """The offset at which the last record before `end` begins; 0 if it is not found."""
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
            chunk = Chunk(self.pending[:at], self.offset, self.encoding, self.source)
            self.offset, self.pending = chunk.end, self.pending[at:]
            yield chunk


def line_end(data: bytes, start: int, encoding: str) -> int:
    """The offset behind the first line end from `start` on; 0 if there is none."""
    newline, width = "\n".encode(encoding), len("\n".encode(encoding))
    found = data.find(newline, start)
    while found >= 0 and (found - start) % width:
        found = data.find(newline, found + 1)
    return found + width if found >= 0 else 0


def last_line_end(data: bytes, encoding: str, before: int | None = None) -> int:
    """The offset behind the last line end that ends by `before`; 0 if there is none."""
    newline, width = "\n".encode(encoding), len("\n".encode(encoding))
    found = data.rfind(newline, 0, len(data) if before is None else before)
    while found >= 0 and found % width:
        found = data.rfind(newline, 0, found + width - 1)
    return found + width if found >= 0 else 0


def character_start(data: bytes, at: int, encoding: str) -> int:
    """The offset of the first byte of the character that contains this byte."""
    if encoding == "utf-8":
        back = at
        while back > max(at - 3, 0) and data[back] & 0xC0 == 0x80:
            back -= 1
        return back if data[back] & 0xC0 != 0x80 else at
    at -= at % 2
    high = at + (encoding == "utf-16-le")
    return at - 2 if at >= 2 and high < len(data) and 0xDC <= data[high] <= 0xDF else at


def _whole_characters(data: bytes, encoding: str) -> int:
    """The number of bytes in complete characters; all if the last one can never be completed."""
    if encoding != "utf-8":
        return _whole_pairs(data, high=int(encoding == "utf-16-le"))
    last = character_start(data, len(data) - 1, encoding)
    try:
        data[last:].decode(encoding)
    except UnicodeDecodeError as error:
        return last if _is_cut(error) else len(data)
    return len(data)


def _whole_pairs(data: bytes, high: int) -> int:
    """The same for UTF-16: without half a unit, or the first of a surrogate pair."""
    end = len(data) - len(data) % 2
    is_first = end and 0xD8 <= data[end - 2 + high] <= 0xDB
    return end - 2 if is_first else end


def _is_cut(error: UnicodeDecodeError) -> bool:
    """Whether more bytes may complete the character, by the decoder's reason."""
    return error.reason in ("unexpected end of data", "truncated data")
