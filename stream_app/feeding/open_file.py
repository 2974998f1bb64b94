"""Opened: a plain file of text, read from a place on while others may write to it or cut it.

Knows one open file; not what its name stands for now.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stream_app.feeding.checkpoints import Checkpoint
from stream_app.feeding.chunking import Chunk, RecordRules, Splitter
from stream_app.feeding.file_types import detect_text, is_partial_bom
from stream_app.feeding.fingerprint import HEAD_BYTES, Fingerprint
from stream_app.feeding.start_offset import skip_hole

# About what goes into an event; so many of them are read at a time.
CHUNK_BYTES = 16_384
_CHUNKS = 16
LOOK_SECONDS = 1.0


class NotTextError(ValueError):
    """The file is not text; the message says what it is."""


class OpenFile:
    """What is read of it, in pieces.

    cut: the file does not hold any more what was read of it; fits: whether a file does. is_passed:
    whether it holds a later text, where too little was read to tell; None where it does not grow.
    """

    def __init__(
        self,
        path: Path,
        file: int,
        entry: Checkpoint,
        rules: RecordRules,
        is_passed: Callable[["OpenFile"], bool] | None = None,
    ) -> None:
        self.path = path
        self.fd = file
        self.checkpoint = entry
        self.rules = rules
        self.is_superseded = is_passed
        self.fingerprint = Fingerprint.of(file, entry.sent)
        self.matches = self.fingerprint.matches
        self.truncated = not entry.matches(file)  # a moment ago
        if self.truncated:
            self.matches = entry.matches
        self.splitter: Splitter | None = None
        self._looked, self._start = 0.0, 0

    async def read(self) -> AsyncIterator[Chunk]:
        """What can be read now; a record that has no end yet is kept back.

        Raises NotTextError.
        """
        while not self.truncated and (block := await asyncio.to_thread(self._block)):
            assert self.splitter is not None
            for start in range(0, len(block), CHUNK_BYTES):
                chunk = block[start : start + CHUNK_BYTES]
                self.fingerprint.advance(chunk)
                more = len(block) == CHUNK_BYTES * _CHUNKS or start + CHUNK_BYTES < len(block)
                for piece in self.splitter.push(chunk, more):
                    yield piece
        if self.splitter:
            for piece in self.splitter.flush_lines():
                yield piece

    def flush(self) -> list[Chunk]:
        """What was kept back, when there is no more of this file."""
        return list(self.splitter.flush()) if self.splitter else []

    def switch_to(self, file: int) -> None:
        """The rest of the text is read from an open copy that was made before it was cut."""
        os.close(self.fd)
        self.fd, self.truncated, self.is_superseded = file, False, None

    def is_replaced(self) -> bool:
        """Whether the path stands for another file now."""
        try:
            now, ours = self.path.stat(), os.fstat(self.fd)
        except OSError:  # between the old file and the new one
            return False
        return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        """Let the file go."""
        with suppress(OSError):
            os.close(self.fd)

    def _block(self) -> bytes:
        if self.splitter is None:
            return self._first()
        at = self.fingerprint.offset
        data = os.pread(self.fd, CHUNK_BYTES * _CHUNKS, at)
        if self.is_superseded is None:
            return data
        if self.fingerprint.matches(self.fd):
            return b"" if self._seems_passed(bool(data)) else data
        self.truncated = True
        # What was read is of the old text, unless it lies there in the new one.
        return b"" if os.pread(self.fd, len(data), at) == data else data

    def _first(self) -> bytes:
        """The first of it, once it can be told how it begins; nothing, if that changed meanwhile.

        Raises NotTextError.
        """
        found = self._beginning()
        start = max(self.fingerprint.offset, found.start) if found else 0
        marks = (
            self.fingerprint if start == self.fingerprint.offset else Fingerprint.of(self.fd, start)
        )
        data = os.pread(self.fd, CHUNK_BYTES * _CHUNKS, start) if found else b""
        if self.is_superseded:
            self.truncated = not self.fingerprint.matches(self.fd)
            is_other = self._beginning() != found or not marks.matches(self.fd)
            if self.truncated or is_other or self._seems_passed(bool(data)) or not found:
                return b""
        if found:
            if start != self.fingerprint.offset:  # neither hole nor mark is text
                self.checkpoint.fingerprint = Fingerprint.of(self.fd, start)
            self.fingerprint, self.matches, self._start = marks, marks.matches, start
            self.splitter = Splitter(start, found.encoding, self.checkpoint, self.rules)
        return data

    def _seems_passed(self, now: bool) -> bool:
        """Whether a text that was hardly read is not there any more. now: there is more of it."""
        is_due = now or time.monotonic() - self._looked >= LOOK_SECONDS
        if self.is_superseded and is_due and self.fingerprint.offset - self._start < HEAD_BYTES:
            self._looked = time.monotonic()
            self.truncated = self.is_superseded(self)
        return self.truncated

    def _beginning(self) -> "_Beginning | None":
        """How the text is encoded, and where it begins; None if it is too early to tell."""
        hole, head = skip_hole(self.fd)
        if not head or (self.is_superseded and is_partial_bom(head)):
            return None
        text = detect_text(head)
        if text.refusal:
            raise NotTextError(text.refusal)
        return _Beginning(hole + text.bom_bytes, text.encoding)


class _Beginning(NamedTuple):
    start: int
    encoding: str
