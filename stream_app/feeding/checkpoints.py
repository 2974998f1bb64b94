"""Checkpoints: how far each file was sent to Kafka.

`checkpoint_file` stores them. What was confirmed since is found in Kafka (`recovery`).

These hold at any moment, so a feeder may be killed at any moment:

1. A checkpoint belongs to one text: what a file held between two truncations. The text keeps its
   checkpoint when the file is renamed, or when a copy has the rest of it.
2. A checkpoint is stored before any event of it is sent, and the checkpoints of a path are stored
   in the order in which their texts were written.
3. `sent_hash` is the fingerprint of exactly the first `sent` bytes, which Kafka has. Events of a
   text are sent in order, and each carries the fingerprint up to its end, so both can be recovered.
4. A file continues a checkpoint only if it matches the fingerprint, checked after reading.
5. A rotated file beside a followed one has a checkpoint if it existed at the very first start, or
   was read (`contains`). One without a checkpoint was never read (see `rotation`).
"""

import os
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream_app.feeding.chunking import Chunk
from stream_app.feeding.fingerprint import Fingerprint, FingerprintHash, hash_matches

NOWHERE = (0, 0)
"""Device and inode of a text that is in no file."""


@dataclass(slots=True, eq=False)
class Checkpoint:
    """How far one text was sent.

    fingerprint: of what was handed to the Kafka client; sent, sent_hash: the offset up to which
    Kafka has it, and the fingerprint there; end: where the text ends, once that is known. archive:
    the file is decompressed or converted, so `sent` counts the resulting bytes and the fingerprint
    is that of the whole file.
    """

    id: str
    path: str
    stream: str
    device: int
    inode: int
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    sent_hash: FingerprintHash = field(default_factory=lambda: Fingerprint().hashed())
    sent: int = 0
    archive: bool = False
    end: int | None = None
    since: float = field(default_factory=time.time)

    @property
    def done(self) -> bool:
        """Whether the text was read to its end and Kafka has all of it."""
        return self.end is not None and self.sent >= self.end

    def is_file(self, status: os.stat_result) -> bool:
        """Whether this is the file's device and inode."""
        return (status.st_dev, status.st_ino) == (self.device, self.inode)

    def matches(self, fd: int) -> bool:
        """Whether the open file holds what was sent of this text."""
        return hash_matches(self.sent_hash, fd)

    def describes(self, fd: int) -> bool:
        """Whether the open file is the one this checkpoint was read from.

        An empty file matches a text of which nothing was read.
        """
        status = os.fstat(fd)
        if not self.is_file(status) or not (self.sent or self.end or not status.st_size):
            return False
        is_ahead = self.fingerprint.offset > self.sent
        return self.fingerprint.matches(fd) if is_ahead else self.matches(fd)

    def advance(self, chunk: Chunk) -> FingerprintHash:
        """The fingerprint up to the end of the chunk, which is the next to be sent."""
        if self.archive:
            return self.sent_hash
        self.fingerprint.advance(chunk.raw)
        return self.fingerprint.hashed()

    def to_dict(self) -> dict[str, Any]:
        """For the checkpoint file."""
        return {
            "id": self.id, "path": self.path, "stream": self.stream, "device": self.device,
            "inode": self.inode, "archive": self.archive, "sent": self.sent, "end": self.end,
            "since": self.since,
            "marks": self.sent_hash,
        }  # fmt: skip


class Checkpoints:
    """The checkpoints of all files, in memory. next_offsets: up to which offset of each partition
    Kafka's events are included; origin: topic and cluster they were sent to; clean: whether all
    that was sent is included."""

    def __init__(self) -> None:
        self.entries: dict[str, Checkpoint] = {}
        self.next_offsets: dict[str, int] = {}
        self.origin: dict[str, Any] = {}
        self.changed = False
        self.clean = True

    @property
    def is_persistent(self) -> bool:
        """Whether a restart continues from these."""
        return False

    def add(
        self, path: Path, stream: str, fd: int, start: int, archive: bool = False
    ) -> Checkpoint:
        """A checkpoint for a new open file, to be sent from offset `start`; it is saved."""
        entry = self._add(os.fsdecode(path.absolute()), stream, fd, start, archive)
        self.save()
        return entry

    def ignore(self, stream: str, fd: int) -> None:
        """Remember an open file that is older than a followed one and is not sent."""
        self._add("", stream, fd, os.fstat(fd).st_size).end = 0

    def start_following(self, path: Path, stream: str) -> None:
        """Record that the path is followed; the files rotated before were ignored."""
        name = os.fsdecode(path.absolute())
        entry = Checkpoint(uuid.uuid4().hex[:16], name, stream, *NOWHERE, end=0)
        self.entries[entry.id] = entry
        self.save()

    def _add(
        self, path: str, stream: str, fd: int, start: int, archive: bool = False
    ) -> Checkpoint:
        status = os.fstat(fd)
        fingerprint = Fingerprint.of(fd, status.st_size if archive else start)
        entry = Checkpoint(
            uuid.uuid4().hex[:16], path, stream, status.st_dev, status.st_ino, fingerprint,
            fingerprint.hashed(), start, archive,
        )  # fmt: skip
        self.entries[entry.id] = entry
        return entry

    def finish(self, entry: Checkpoint, end: int | None = None) -> None:
        """The text was read to its end (by default what was sent), or its file was deleted."""
        entry.end = entry.sent if end is None else end
        self.changed = True

    def confirm(self, chunk: Chunk, sent_hash: FingerprintHash | None = None) -> None:
        """Kafka has this chunk and all before it. sent_hash: the fingerprint up to its end."""
        entry: Checkpoint = chunk.source
        entry.sent_hash = sent_hash or entry.advance(chunk)
        entry.sent = chunk.end
        self.changed = True

    def resume(self, entry: Checkpoint, fd: int) -> None:
        """The open file has the text, and is read from `sent` on."""
        entry.fingerprint.offset = entry.sent
        self.relocate(entry, fd)

    def relocate(self, entry: Checkpoint, fd: int) -> None:
        """The open file has the text now, instead of the file before."""
        status = os.fstat(fd)
        entry.device, entry.inode = status.st_dev, status.st_ino
        if not entry.archive:  # both files are the same up to the fingerprint's offset
            entry.fingerprint = Fingerprint.of(fd, entry.fingerprint.offset)

    def mark_deleted(self, entry: Checkpoint) -> None:
        """The text is in no file any more."""
        entry.device, entry.inode = NOWHERE

    def find(self, path: Path, stream: str) -> list[Checkpoint]:
        """The checkpoints of a plain file's path, oldest first."""
        name = os.fsdecode(path.absolute())
        return [entry for entry in [*self.entries.values()] if _is_of(entry, name, stream)]

    def contains(self, stream: str, fd: int, except_for: Checkpoint | None = None) -> bool:
        """Whether the open file was or is being read for the stream, or was ignored.

        except_for: this checkpoint does not count.
        """
        return any(
            entry.describes(fd)
            for entry in [*self.entries.values()]
            if entry is not except_for and entry.stream == stream
        )

    def save(self, clean: bool = False) -> None:
        """Store them; in memory there is nothing to do."""

    def close(self) -> None:
        """Release the file; in memory there is nothing to do."""


def _is_of(entry: Checkpoint, path: str, stream: str) -> bool:
    return entry.path == path and entry.stream == stream and not entry.archive
