"""Reading: a file's text as a stream would have it that `xl3m feed` fed, in chunks of whole lines.

Archives, UTF-16 and transcripts are read as `feed` reads them. Line breaks stay as they are, so
that offsets are those of the stream. What is not text is left out by the line, or replaced, as the
settings say. Knows bytes; not what is made of the text.
"""

import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

import click

from stream_app.errors import SettingsError
from stream_app.feeding.chunking import Chunk, RecordRules, Splitter
from stream_app.feeding.compression import ArchiveError, decompress
from stream_app.feeding.content import extract, inspect
from stream_app.feeding.file_types import detect_compression, detect_text
from stream_app.formats.lines import LineRule, timed
from stream_app.settings import Encoding
from xl3m_core.segment import Line

CHUNK_BYTES = 1 << 16
# A line longer than this is read in pieces.
LONGEST_LINE = 1 << 16


class FileText:
    """The text of a file, of standard input (`-`) or of a pipe; it may be read once. rule: how a
    line says its time, if that is asked for."""

    def __init__(self, path: Path, encoding: Encoding, rule: LineRule | None = None) -> None:
        self.path = path
        self.strict = encoding == "strict"
        self.rule = rule
        self.skipped_lines = 0
        self.first_bad = 0
        self.named = ""
        self.damage = ""

    def timed(self) -> Iterator[str | list[Line]]:
        """The chunks; where lines have times, as lines, each with its own or the one before it."""
        now_ms, held_ms = round(time.time() * 1000), None
        for text in self.chunks():
            if self.rule is None:
                yield text
                continue
            lines = list[Line]()
            for piece in timed(text, self.rule, now_ms):
                held_ms = piece.time_ms or held_ms
                lines.append((piece.text, held_ms))
            yield lines

    def chunks(self) -> Iterator[str]:
        """The text; what is left out is counted meanwhile. Raises SettingsError if it is none."""
        splitter: Splitter | None = None
        for data in self._content():
            if splitter is None:
                text = detect_text(data)
                if text.refusal:
                    raise SettingsError(f"{self.path} is no text: {text.refusal}")
                rules = RecordRules(max_bytes=LONGEST_LINE)
                splitter = Splitter(text.bom_bytes, text.encoding, None, rules)
                data = data[text.bom_bytes :]
            for piece in splitter.push(data):
                yield self._decoded(piece)
        for piece in splitter.flush() if splitter else ():
            yield self._decoded(piece)

    def _content(self) -> Iterator[bytes]:
        """What it says, as `feed` unpacks it; what is wrong with an archive ends it."""
        try:
            is_packed = self.path.is_file() and inspect(self.path).needs_extraction
            yield from extract(self.path) if is_packed else self._as_it_comes()
        except ArchiveError as error:
            self.damage = f"{self.path}: {error}; what could be read is read"

    def _as_it_comes(self) -> Iterator[bytes]:
        with click.open_file(str(self.path), "rb") as opened:
            file = cast(BinaryIO, opened)
            head = file.read(CHUNK_BYTES)
            if packed := detect_compression(head):
                heads = [head]
                yield from decompress(
                    packed, lambda size: heads.pop() if heads else file.read(size)
                )
            else:
                rest = iter(lambda: file.read(CHUNK_BYTES), b"")
                yield from chain([head] if head else [], rest)

    def _decoded(self, piece: Chunk) -> str:
        if not self.strict or piece.is_text():
            return piece.text()
        return "".join(self._lines(piece))

    def _lines(self, piece: Chunk) -> Iterator[str]:
        for line in piece.lines():
            try:
                yield line.raw.decode(line.encoding)
            except UnicodeDecodeError as error:
                if not self.skipped_lines:
                    self.first_bad, self.named = line.start + error.start, line.encoding.upper()
                self.skipped_lines += 1

    @property
    def warning(self) -> str:
        """What there is to say of what was left out; nothing if there is nothing."""
        if not self.skipped_lines:
            return self.damage
        lines = "1 line was" if self.skipped_lines == 1 else f"{self.skipped_lines} lines were"
        said = (
            f"{lines} left out, not being {self.named}: the first wrong byte of {self.path} is at "
            f"offset {self.first_bad}. XL3M_ENCODING=replace reads them with U+FFFD for what is "
            "wrong"
        )
        return f"{said}; {self.damage}" if self.damage else said
