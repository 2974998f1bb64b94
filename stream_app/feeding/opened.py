"""Opened: a plain file of text, read from a place on while others may write to it or cut it.

Knows one open file; not what its name stands for now.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from stream_app.feeding.kinds import HEAD_BYTES, may_become_mark, text_of
from stream_app.feeding.marks import Marks
from stream_app.feeding.pieces import Piece, Splitter
from stream_app.feeding.positions import Entry

# About what goes into an event; so many of them are read at a time.
CHUNK_BYTES = 16_384
_CHUNKS = 16


class NotTextError(ValueError):
    """The file is not text; the message says what it is."""


class Opened:
    """What is read of it, in pieces. cut: it does not hold any more what was read of it."""

    def __init__(
        self,
        path: Path,
        file: int,
        entry: Entry,
        longest: int,
        grows: bool,
        after_cut: bool = False,
    ) -> None:
        self.path = path
        self.file = file
        self.entry = entry
        self.longest = longest
        self.grows = grows
        self.after_cut = after_cut
        self.cut = False
        self.marks = Marks.of(file, entry.sent)
        self.splitter: Splitter | None = None

    async def read(self) -> AsyncIterator[Piece]:
        """What can be read now; a record that has no end yet is kept back.

        Raises NotTextError.
        """
        while not self.cut and (block := await asyncio.to_thread(self._block)):
            assert self.splitter is not None
            for start in range(0, len(block), CHUNK_BYTES):
                chunk = block[start : start + CHUNK_BYTES]
                self.marks.advance(chunk)
                more = len(block) == CHUNK_BYTES * _CHUNKS or start + CHUNK_BYTES < len(block)
                for piece in self.splitter.push(chunk, more):
                    yield piece
        if self.splitter:
            for piece in self.splitter.whole():
                yield piece

    def end(self) -> list[Piece]:
        """What was kept back, when there is no more of this file."""
        return list(self.splitter.end()) if self.splitter else []

    def go_on_in(self, file: int) -> None:
        """The rest of what was cut is read from an open copy that was made before."""
        os.close(self.file)
        self.file, self.cut, self.grows = file, False, False

    def is_replaced(self) -> bool:
        """Whether the path stands for another file now."""
        try:
            now, ours = self.path.stat(), os.fstat(self.file)
        except OSError:  # between the old file and the new one
            return False
        return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        """Let the file go."""
        with suppress(OSError):
            os.close(self.file)

    def _block(self) -> bytes:
        if not self.splitter and not self._begin():
            return b""
        at = self.marks.offset
        data = os.pread(self.file, CHUNK_BYTES * _CHUNKS, at)
        if not self.grows or self.marks.fit(self.file):
            return data
        self.cut = True
        # What was read is of the old text, unless it lies there in the new one.
        return b"" if os.pread(self.file, len(data), at) == data else data

    def _begin(self) -> bool:
        """Find out how the text is encoded; False if it is too early to tell."""
        head = os.pread(self.file, HEAD_BYTES, 0)
        hole = _hole_of(self.file) if self.after_cut and head[:1] == b"\0" else 0
        if hole:
            head = os.pread(self.file, HEAD_BYTES, hole)
        if not head or (self.grows and may_become_mark(head)):
            return False
        text = text_of(head)
        if text.refusal:
            raise NotTextError(text.refusal)
        start = max(self.marks.offset, hole + text.mark_bytes)
        if start > self.marks.offset:  # neither hole nor mark is text
            self.marks, self.entry.marks = Marks.of(self.file, start), Marks.of(self.file, start)
        self.splitter = Splitter(start, text.encoding, self.entry, self.longest)
        return True


def _hole_of(file: int) -> int:
    """How many NUL bytes a file begins with: who goes on writing at the old place of a file that
    was cut leaves them."""
    at = 0
    while data := os.pread(file, 1 << 20, at):
        kept = data.lstrip(b"\0")
        at += len(data) - len(kept)
        if kept:
            return at
    return at
