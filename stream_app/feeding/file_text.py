"""File text: the text of a file for `xl3m run`, as `xl3m feed` would send it, in whole lines.

Archives, UTF-16 and transcripts are converted. Line breaks are kept, so that offsets are those of
the stream. Lines that are not valid text are skipped or repaired, by XL3M_ENCODING.
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
# A longer line is split.
LONGEST_LINE = 1 << 16


class FileText:
    """The text of a file, of standard input (`-`) or of a pipe; it can be read once.

    rule: how to read a time from a line; None: do not. skipped_lines, warning: what was left out.
    """

    def __init__(self, path: Path, encoding: Encoding, rule: LineRule | None = None) -> None:
        self.path = path
        self.strict = encoding == "strict"
        self.rule = rule
        self.skipped_lines = 0
        self.bad_offset = 0
        self.encoding = ""
        self.damage = ""

    def timed(self) -> Iterator[str | list[Line]]:
        """The chunks; with a rule: lists of lines with their times (or that of the line before)."""
        now_ms, last_ms = round(time.time() * 1000), None
        for text in self.chunks():
            if self.rule is None:
                yield text
                continue
            lines = list[Line]()
            for chunk in timed(text, self.rule, now_ms):
                last_ms = chunk.time_ms or last_ms
                lines.append((chunk.text, last_ms))
            yield lines

    def chunks(self) -> Iterator[str]:
        """The text, counting skipped lines. Raises SettingsError if the file is not text."""
        splitter: Splitter | None = None
        for data in self._content():
            if splitter is None:
                text = detect_text(data)
                if text.refusal:
                    raise SettingsError(f"{self.path} is not text: {text.refusal}")
                rules = RecordRules(max_bytes=LONGEST_LINE)
                splitter = Splitter(text.bom_bytes, text.encoding, None, rules)
                data = data[text.bom_bytes :]
            for chunk in splitter.push(data):
                yield self._decoded(chunk)
        for chunk in splitter.flush() if splitter else ():
            yield self._decoded(chunk)

    def _content(self) -> Iterator[bytes]:
        """The bytes of the text; they end where an archive is damaged."""
        try:
            is_extracted = self.path.is_file() and inspect(self.path).needs_extraction
            yield from extract(self.path) if is_extracted else self._raw_content()
        except ArchiveError as error:
            self.damage = f"{self.path}: {error}; what could be read before that is used"

    def _raw_content(self) -> Iterator[bytes]:
        with click.open_file(str(self.path), "rb") as opened:
            file = cast(BinaryIO, opened)
            head = file.read(CHUNK_BYTES)
            if compression := detect_compression(head):
                first = [head]
                yield from decompress(
                    compression, lambda size: first.pop() if first else file.read(size)
                )
            else:
                rest = iter(lambda: file.read(CHUNK_BYTES), b"")
                yield from chain([head] if head else [], rest)

    def _decoded(self, chunk: Chunk) -> str:
        if not self.strict or chunk.is_text():
            return chunk.text()
        return "".join(self._valid_lines(chunk))

    def _valid_lines(self, chunk: Chunk) -> Iterator[str]:
        for line in chunk.lines():
            try:
                yield line.raw.decode(line.encoding)
            except UnicodeDecodeError as error:
                if not self.skipped_lines:
                    self.bad_offset, self.encoding = line.start + error.start, line.encoding.upper()
                self.skipped_lines += 1

    @property
    def warning(self) -> str:
        """One sentence about skipped lines and damage; empty if there are none."""
        if not self.skipped_lines:
            return self.damage
        lines = "1 line was" if self.skipped_lines == 1 else f"{self.skipped_lines} lines were"
        message = (
            f"{lines} skipped (not valid {self.encoding}): the first bad byte of {self.path} is at "
            f"offset {self.bad_offset}. XL3M_ENCODING=replace replaces bad bytes by U+FFFD instead"
        )
        return f"{message}; {self.damage}" if self.damage else message
