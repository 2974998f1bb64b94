"""Reading: a file's text as a stream would have it, in chunks of whole lines.

Line breaks stay as they are, so that offsets are those of the stream. What is not UTF-8 is left
out by the line, or replaced, as the settings say. Knows bytes; not what is made of the text.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import click

from stream_app.settings import Encoding

CHUNK_BYTES = 1 << 16
# A line longer than this is read in pieces.
LONGEST_LINE = 1 << 16


class FileText:
    """The text of a file, of standard input (`-`) or of a pipe; it may be read once."""

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self.path = path
        self.strict = encoding == "strict"
        self.left_out = 0
        self.first_bad = 0

    def chunks(self) -> Iterator[str]:
        """The text; what is left out is counted meanwhile."""
        with click.open_file(str(self.path), "rb") as opened:
            file, rest, at = cast(BinaryIO, opened), b"", 0
            while data := file.read(CHUNK_BYTES):
                whole, newline, rest = (rest + data).rpartition(b"\n")
                yield self._decoded(whole + newline, at)
                at += len(whole + newline)
                if len(rest) >= LONGEST_LINE:
                    end = _whole_characters(rest)
                    yield self._decoded(rest[:end], at)
                    rest, at = rest[end:], at + end
            yield self._decoded(rest, at)

    def _decoded(self, data: bytes, at: int) -> str:
        """at: where in the file the bytes begin."""
        try:
            return data.decode("utf-8", "strict" if self.strict else "replace")
        except UnicodeDecodeError:
            return "".join(self._lines(data, at))

    def _lines(self, data: bytes, at: int) -> Iterator[str]:
        for line in io.BytesIO(data):
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                if not self.left_out:
                    self.first_bad = at + error.start
                self.left_out += 1
            at += len(line)

    @property
    def complaint(self) -> str:
        """What there is to say of lines that were left out; nothing if there are none."""
        if not self.left_out:
            return ""
        lines = "1 line was" if self.left_out == 1 else f"{self.left_out} lines were"
        return (
            f"{lines} left out, not being UTF-8: the first wrong byte of {self.path} is at offset "
            f"{self.first_bad}. XL3M_ENCODING=replace reads them with U+FFFD for what is wrong"
        )


def _whole_characters(data: bytes) -> int:
    """How many bytes of it end with a whole character, as far as they may be UTF-8 at all."""
    for back in range(1, 5):
        lead = data[-back]
        if lead & 0xC0 != 0x80:  # an ASCII character, or the first byte of one
            size = 1 + (lead >= 0xC0) + (lead >= 0xE0) + (lead >= 0xF0)
            return len(data) - back if size > back else len(data)
    return len(data)
