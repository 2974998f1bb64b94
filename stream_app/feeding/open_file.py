"""Open file: a plain text file that is read while others may append to it or truncate it.

Works on one open file; which file its path names now is the `tailer`'s concern.
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

# The size of an event, about; this many are read at a time.
CHUNK_BYTES = 16_384
_CHUNKS = 16
LOOK_SECONDS = 1.0


class NotTextError(ValueError):
    """The file is not text; the message says what it is."""


class OpenFile:
    """Reads a file in chunks.

    truncated: the file no longer holds what was read of it; matches: whether an open file does.
    is_superseded: tells whether the file holds a later text, where too little was read to see it;
    None for a file that does not grow.
    """

    def __init__(
        self,
        path: Path,
        fd: int,
        checkpoint: Checkpoint,
        rules: RecordRules,
        is_passed: Callable[["OpenFile"], bool] | None = None,
    ) -> None:
        self.path = path
        self.fd = fd
        self.checkpoint = checkpoint
        self.rules = rules
        self.is_superseded = is_passed
        self.fingerprint = Fingerprint.of(fd, checkpoint.sent)
        self.matches = self.fingerprint.matches
        self.truncated = not checkpoint.matches(fd)  # it may have been a moment ago
        if self.truncated:
            self.matches = checkpoint.matches
        self.splitter: Splitter | None = None
        self._checked_at, self._start = 0.0, 0

    async def read(self) -> AsyncIterator[Chunk]:
        """All that can be read now; an unfinished record is kept back. Raises NotTextError."""
        while not self.truncated and (block := await asyncio.to_thread(self._block)):
            assert self.splitter is not None
            for start in range(0, len(block), CHUNK_BYTES):
                data = block[start : start + CHUNK_BYTES]
                self.fingerprint.advance(data)
                more = len(block) == CHUNK_BYTES * _CHUNKS or start + CHUNK_BYTES < len(block)
                for chunk in self.splitter.push(data, more):
                    yield chunk
        if self.splitter:
            for chunk in self.splitter.flush_lines():
                yield chunk

    def flush(self) -> list[Chunk]:
        """What was kept back, at the end of the file."""
        return list(self.splitter.flush()) if self.splitter else []

    def switch_to(self, fd: int) -> None:
        """Read the rest of the text from an open copy that was made before the truncation."""
        os.close(self.fd)
        self.fd, self.truncated, self.is_superseded = fd, False, None

    def is_replaced(self) -> bool:
        """Whether the path names another file now."""
        try:
            now, ours = self.path.stat(), os.fstat(self.fd)
        except OSError:  # between the old file and the new one
            return False
        return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        """Close the file."""
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
            return b"" if self._seems_superseded(bool(data)) else data
        self.truncated = True
        # What was just read is of the old text, unless the new one holds it at this offset, too.
        return b"" if os.pread(self.fd, len(data), at) == data else data

    def _first(self) -> bytes:
        """The first bytes, once the encoding is known; nothing if the file changed meanwhile.

        Raises NotTextError.
        """
        begin = self._beginning()
        start = max(self.fingerprint.offset, begin.start) if begin else 0
        fingerprint = (
            self.fingerprint if start == self.fingerprint.offset else Fingerprint.of(self.fd, start)
        )
        data = os.pread(self.fd, CHUNK_BYTES * _CHUNKS, start) if begin else b""
        if self.is_superseded:
            self.truncated = not self.fingerprint.matches(self.fd)
            is_other = self._beginning() != begin or not fingerprint.matches(self.fd)
            if self.truncated or is_other or self._seems_superseded(bool(data)) or not begin:
                return b""
        if begin:
            if start != self.fingerprint.offset:  # skip the hole and the byte order mark
                self.checkpoint.fingerprint = Fingerprint.of(self.fd, start)
            self.fingerprint, self.matches, self._start = fingerprint, fingerprint.matches, start
            self.splitter = Splitter(start, begin.encoding, self.checkpoint, self.rules)
        return data

    def _seems_superseded(self, now: bool) -> bool:
        """Whether a text of which little was read has been replaced. now: check without delay."""
        is_due = now or time.monotonic() - self._checked_at >= LOOK_SECONDS
        if self.is_superseded and is_due and self.fingerprint.offset - self._start < HEAD_BYTES:
            self._checked_at = time.monotonic()
            self.truncated = self.is_superseded(self)
        return self.truncated

    def _beginning(self) -> "_Beginning | None":
        """The text's encoding and start offset; None if too few bytes are there to tell."""
        hole, head = skip_hole(self.fd)
        if not head or (self.is_superseded and is_partial_bom(head)):
            return None
        text = detect_text(head)
        if text.refusal:
            raise NotTextError(text.refusal)
        return _Beginning(hole + text.bom_bytes, text.encoding)


class _Beginning(NamedTuple):
    """Where the text starts, behind hole and byte order mark, and its encoding."""

    start: int
    encoding: str
