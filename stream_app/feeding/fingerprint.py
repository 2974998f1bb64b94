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

FingerprintHash = dict[str, Any]
"""Marks as they are stored: lengths and hashes, no byte of the text."""


@dataclass(slots=True)
class Fingerprint:
    """Of what was read of a file so far, up to the offset."""

    offset: int = 0
    head: bytes = field(default=b"", repr=False)
    last: bytes = field(default=b"", repr=False)
    head_hash: str = field(default="", repr=False)

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
            self.head_hash = ""
        self.last = (self.last + data[-LAST_BYTES:])[-LAST_BYTES:]
        self.offset += len(data)

    def matches(self, file: int) -> bool:
        """Whether the file holds what was read, at its place."""
        return (
            os.fstat(file).st_size >= self.offset
            and os.pread(file, len(self.head), 0) == self.head
            and os.pread(file, len(self.last), self.offset - len(self.last)) == self.last
        )

    def hashed(self) -> FingerprintHash:
        """For a file that others may read."""
        self.head_hash = self.head_hash or _hash(self.head)
        return {
            "offset": self.offset,
            "head": [len(self.head), self.head_hash],
            "last": [len(self.last), _hash(self.last)],
        }


def hash_matches(note: FingerprintHash, file: int) -> bool:
    """Whether the file holds what the note is of."""
    offset, (head, head_hash), (last, last_hash) = note["offset"], note["head"], note["last"]
    return bool(
        os.fstat(file).st_size >= offset
        and _hash(os.pread(file, head, 0)) == head_hash
        and _hash(os.pread(file, last, offset - last)) == last_hash
    )


def format_hash(note: FingerprintHash) -> str:
    """The note as a word of a header."""
    return ":".join(str(each) for name in ("head", "last") for each in note[name])


def parse_hash(offset: int, words: list[Any]) -> FingerprintHash:
    """The note that was written so. Raises ValueError if there can be none such."""
    head, last = int(words[0]), int(words[2])
    if len(words) != 4 or head != min(offset, HEAD_BYTES) or last != min(offset, LAST_BYTES):
        raise ValueError("these are no marks")
    return {"offset": int(offset), "head": [head, str(words[1])], "last": [last, str(words[3])]}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
