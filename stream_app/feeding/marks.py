"""Marks: what tells a file from another that has its name or its inode now.

The first bytes of a file and the last ones that were read of it. Whoever cuts a file, writes it
anew or puts another in its place changes one of the two, and a copy has both. Knows open files;
nothing of what is done with them.
"""

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any, Self

HEAD_BYTES = 1024
LAST_BYTES = 256


@dataclass(slots=True)
class Marks:
    """Of what was read of a file so far, up to the offset."""

    offset: int = 0
    head: bytes = field(default=b"", repr=False)
    last: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, file: int, offset: int) -> Self:
        """As if the file had been read up to there."""
        head = os.pread(file, min(HEAD_BYTES, offset), 0)
        start = max(0, offset - LAST_BYTES)
        return cls(offset, head, os.pread(file, offset - start, start))

    def advance(self, data: bytes) -> None:
        """The bytes that follow have been read."""
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
        self.last = (self.last + data[-LAST_BYTES:])[-LAST_BYTES:]
        self.offset += len(data)

    def fit(self, file: int) -> bool:
        """Whether the file holds what was read, at its place."""
        return (
            os.fstat(file).st_size >= self.offset
            and os.pread(file, len(self.head), 0) == self.head
            and os.pread(file, len(self.last), self.offset - len(self.last)) == self.last
        )

    def note(self) -> dict[str, Any]:
        """For a file that others may read: no byte of the text is in it."""
        return {
            "offset": self.offset,
            "head": [len(self.head), _hash(self.head)],
            "last": [len(self.last), _hash(self.last)],
        }


def fit_note(note: dict[str, Any], file: int) -> bool:
    """The same for what was noted."""
    offset, (head, head_hash), (last, last_hash) = note["offset"], note["head"], note["last"]
    return (
        os.fstat(file).st_size >= int(offset)
        and _hash(os.pread(file, head, 0)) == str(head_hash)
        and _hash(os.pread(file, last, offset - last)) == str(last_hash)
    )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
