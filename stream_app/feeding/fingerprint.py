"""Fingerprint: tells a file from another one that now has its name or its inode.

It is the first bytes of a file and the last bytes that were read. Truncating, rewriting or
replacing a file changes one of them; a copy has both. Works on file descriptors.
"""

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any, Self

HEAD_BYTES = 1024
LAST_BYTES = 256

FingerprintHash = dict[str, Any]
"""A fingerprint as it is stored: an offset, lengths and hashes, none of the file's text."""


@dataclass(slots=True)
class Fingerprint:
    """Of the first `offset` bytes of a file: all that was read so far."""

    offset: int = 0
    head: bytes = field(default=b"", repr=False)
    last: bytes = field(default=b"", repr=False)
    head_hash: str = field(default="", repr=False)

    @classmethod
    def of(cls, fd: int, offset: int) -> Self:
        """The fingerprint of an open file as if it had been read up to the offset."""
        head = os.pread(fd, min(HEAD_BYTES, offset), 0)
        start = max(0, offset - LAST_BYTES)
        return cls(offset, head, os.pread(fd, offset - start, start))

    def advance(self, data: bytes) -> None:
        """Include the bytes that were read next."""
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
            self.head_hash = ""
        self.last = (self.last + data[-LAST_BYTES:])[-LAST_BYTES:]
        self.offset += len(data)

    def matches(self, fd: int) -> bool:
        """Whether the open file still holds these bytes at their offsets."""
        return (
            os.fstat(fd).st_size >= self.offset
            and os.pread(fd, len(self.head), 0) == self.head
            and os.pread(fd, len(self.last), self.offset - len(self.last)) == self.last
        )

    def hashed(self) -> FingerprintHash:
        """For the checkpoint file and the headers of events."""
        self.head_hash = self.head_hash or _hash(self.head)
        return {
            "offset": self.offset,
            "head": [len(self.head), self.head_hash],
            "last": [len(self.last), _hash(self.last)],
        }


def hash_matches(stored: FingerprintHash, fd: int) -> bool:
    """Whether the open file has the stored fingerprint."""
    offset, (head, head_hash), (last, last_hash) = stored["offset"], stored["head"], stored["last"]
    return bool(
        os.fstat(fd).st_size >= offset
        and _hash(os.pread(fd, head, 0)) == head_hash
        and _hash(os.pread(fd, last, offset - last)) == last_hash
    )


def format_hash(stored: FingerprintHash) -> str:
    """The fingerprint as part of a header, without its offset."""
    return ":".join(str(value) for name in ("head", "last") for value in stored[name])


def parse_hash(offset: int, words: list[Any]) -> FingerprintHash:
    """The fingerprint of a header's words. Raises ValueError if they cannot be one."""
    head, last = int(words[0]), int(words[2])
    if len(words) != 4 or head != min(offset, HEAD_BYTES) or last != min(offset, LAST_BYTES):
        raise ValueError("this is not a fingerprint")
    return {"offset": int(offset), "head": [head, str(words[1])], "last": [last, str(words[3])]}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
