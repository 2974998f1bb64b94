"""Positions: how far each file was sent, kept in a file so that a restart goes on from there.

Written anew in one step, after Kafka confirmed; what was confirmed since is found in Kafka, by
the header that each event carries (see `recovery`). Knows files; nothing of Kafka but offsets.

These hold at any moment, so that a feeder may be killed at any moment:

1. An entry is one text: what a file held between two cuts. It keeps its entry when the file is
   renamed, or when a copy has the rest of it.
2. An entry is in the position file before any event of it is sent, and the entries of a name stand
   in the order in which their texts were written.
3. `note` has the marks of exactly the first `sent` bytes, which Kafka has. Events of an entry are
   sent in order, and each carries the marks behind it, so both can be found again together.
4. A file goes on as an entry only if it fits the note, checked after the bytes were read.
5. A rotated file beside a followed one is in the book if it stood there at the very first start,
   or if it was read (`knows`). One that is not was never read (see `rotation`).
"""

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stream_app.errors import SettingsError
from stream_app.feeding.chunking import Chunk
from stream_app.feeding.fingerprint import Fingerprint, FingerprintHash, hash_matches, parse_hash

VERSION = 1
# Files that were read to their end are remembered, so that they are not taken for new ones.
REMEMBERED = 2000
NOWHERE = (0, 0)


@dataclass(slots=True, eq=False)
class Checkpoint:
    """One text. marks: of what was handed to Kafka; sent, note: up to where Kafka has it, and the
    marks of that. archive: the file is read through something, so that sent counts what comes
    out, and the marks are of the whole file."""

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
        """Whether it was read to its end, and Kafka has all of it."""
        return self.end is not None and self.sent >= self.end

    def is_file(self, status: os.stat_result) -> bool:
        """Whether it is this one, by device and inode."""
        return (status.st_dev, status.st_ino) == (self.device, self.inode)

    def matches(self, file: int) -> bool:
        """Whether the open file holds what was sent of this one."""
        return hash_matches(self.sent_hash, file)

    def describes(self, file: int) -> bool:
        """Whether the open file is the one that was read, or is read; as far as was handed over.
        Of a text that was not read, an empty file may be."""
        status = os.fstat(file)
        if not self.is_file(status) or not (self.sent or self.end or not status.st_size):
            return False
        return (
            self.fingerprint.matches(file)
            if self.fingerprint.offset > self.sent
            else self.matches(file)
        )

    def advance(self, piece: Chunk) -> FingerprintHash:
        """The marks behind this piece, which is the next to be sent."""
        if self.archive:
            return self.sent_hash
        self.fingerprint.advance(piece.raw)
        return self.fingerprint.hashed()

    def to_dict(self) -> dict[str, Any]:
        """For the position file."""
        return {
            "id": self.id, "path": self.path, "stream": self.stream, "device": self.device,
            "inode": self.inode, "archive": self.archive, "sent": self.sent, "end": self.end,
            "since": self.since,
            "marks": self.sent_hash,
        }  # fmt: skip


class Checkpoints:
    """The entries of all files that are fed. Without a position file they are forgotten."""

    def __init__(self) -> None:
        self.entries: dict[str, Checkpoint] = {}
        self.next_offsets: dict[str, int] = {}
        self.origin: dict[str, Any] = {}
        self.changed = False
        self.clean = True

    @property
    def is_persistent(self) -> bool:
        """Whether a restart goes on from here."""
        return False

    def add(
        self, path: Path, stream: str, file: int, start: int, archive: bool = False
    ) -> Checkpoint:
        """An open file that was not known before, to be sent from this place on."""
        entry = self._add(os.fsdecode(path.absolute()), stream, file, start, archive)
        self.save()
        return entry

    def ignore(self, stream: str, file: int) -> None:
        """An open file that is of the past of a followed one, and is not sent."""
        self._add("", stream, file, os.fstat(file).st_size).end = 0

    def start_following(self, path: Path, stream: str) -> None:
        """A name is followed from now on; what is beside it now was passed over."""
        name = os.fsdecode(path.absolute())
        entry = Checkpoint(uuid.uuid4().hex[:16], name, stream, *NOWHERE, end=0)
        self.entries[entry.id] = entry
        self.save()

    def _add(
        self, path: str, stream: str, file: int, start: int, archive: bool = False
    ) -> Checkpoint:
        status = os.fstat(file)
        marks = Fingerprint.of(file, status.st_size if archive else start)
        entry = Checkpoint(
            uuid.uuid4().hex[:16], path, stream, status.st_dev, status.st_ino, marks,
            marks.hashed(), start, archive,
        )  # fmt: skip
        self.entries[entry.id] = entry
        return entry

    def finish(self, entry: Checkpoint, end: int | None = None) -> None:
        """It was read to its end, or is gone."""
        entry.end = entry.sent if end is None else end
        self.changed = True

    def confirm(self, piece: Chunk, note: FingerprintHash | None = None) -> None:
        """Kafka has this piece, and all before it. note: the marks behind it."""
        entry: Checkpoint = piece.source
        entry.sent_hash = note or entry.advance(piece)
        entry.sent = piece.end
        self.changed = True

    def resume(self, entry: Checkpoint, file: int) -> None:
        """The open file is that of the entry, and is read from `sent` on."""
        entry.fingerprint.offset = entry.sent
        self.relocate(entry, file)

    def relocate(self, entry: Checkpoint, file: int) -> None:
        """The open file is that of the entry now, and the one before is it no more."""
        status = os.fstat(file)
        entry.device, entry.inode = status.st_dev, status.st_ino
        if not entry.archive:  # as far as it was handed over, all have the same
            entry.fingerprint = Fingerprint.of(file, entry.fingerprint.offset)

    def mark_deleted(self, entry: Checkpoint) -> None:
        """Its text is in no file any more."""
        entry.device, entry.inode = NOWHERE

    def find(self, path: Path, stream: str) -> list[Checkpoint]:
        """What was begun under this name, in order."""
        name = os.fsdecode(path.absolute())
        return [each for each in [*self.entries.values()] if _is_of(each, name, stream)]

    def contains(self, stream: str, file: int, except_for: Checkpoint | None = None) -> bool:
        """Whether the open file was read for the stream, is read, or was passed over. but: this
        entry is not asked."""
        return any(
            entry.describes(file)
            for entry in [*self.entries.values()]
            if entry is not except_for and entry.stream == stream
        )

    def save(self, clean: bool = False) -> None:
        """Keep it."""

    def close(self) -> None:
        """Let it go."""


class CheckpointFile(Checkpoints):
    """The entries in a file, which one feeder at a time may have."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._lock = _locked(path)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    @property
    def is_persistent(self) -> bool:
        """It does."""
        return True

    def save(self, clean: bool = False) -> None:
        """Write it in one step: after a power cut it is the old one or the new one. clean: all
        that was sent is confirmed, and nothing more will be."""
        self.changed = False
        text = json.dumps(
            {
                "version": VERSION,
                **self.origin,
                "clean": clean,
                "next": self.next_offsets,
                "files": self._files(),
            },
            indent=1,
        )
        new = self.path.with_name(self.path.name + ".new")
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.rename(self.path)
        _sync_folder(self.path.parent)

    def close(self) -> None:
        """Another feeder may have it now."""
        os.close(self._lock)

    def _files(self) -> list[dict[str, Any]]:
        done = [entry for entry in self.entries.values() if entry.done]
        for entry in done[:-REMEMBERED]:
            del self.entries[entry.id]
        return [entry.to_dict() for entry in self.entries.values()]

    def _load(self) -> None:
        try:
            fields = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError as error:
            raise _unreadable(self.path, str(error)) from None
        try:
            if fields["version"] != VERSION:
                raise ValueError(f"it is of version {fields['version']}, not {VERSION}")
            self.next_offsets = {str(name): int(offset) for name, offset in fields["next"].items()}
            self.origin = {name: fields[name] for name in ("topic", "cluster") if name in fields}
            self.clean = bool(fields["clean"])
            self.entries = {entry.id: entry for entry in _entries(fields["files"])}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(self.path, f"{type(error).__name__}: {error}") from None


def _is_of(entry: Checkpoint, path: str, stream: str) -> bool:
    return entry.path == path and entry.stream == stream and not entry.archive


def _entries(files: Iterable[dict[str, Any]]) -> Iterable[Checkpoint]:
    for each in files:
        marks = each["marks"]
        note = parse_hash(marks["offset"], [*marks["head"], *marks["last"]])
        yield Checkpoint(
            str(each["id"]), str(each["path"]), str(each["stream"]), int(each["device"]),
            int(each["inode"]), sent_hash=note, sent=int(each["sent"]),
            archive=bool(each["archive"]),
            end=each["end"], since=float(each["since"]),
        )  # fmt: skip


def _unreadable(path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"the position file {path} cannot be used ({why}): name another, or remove it to feed all "
        "files from their beginning"
    )


def _locked(path: Path) -> int:
    """A lock on a file beside it, since the position file itself is replaced."""
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SettingsError(
            f"another `xl3m feed` uses the position file {path}: stop it, or name another file"
        ) from None
    return lock


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
