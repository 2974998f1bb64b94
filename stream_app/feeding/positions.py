"""Positions: how far each file was sent, kept in a file so that a restart goes on from there.

Written anew in one step, after Kafka confirmed; what was confirmed since is found in Kafka, by
the header that each event carries (see `recovery`). Knows files; nothing of Kafka but offsets.
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
from stream_app.feeding.marks import Marks, fit_note
from stream_app.feeding.pieces import Piece

VERSION = 1
# Files that were read to their end are remembered, so that they are not taken for new ones.
REMEMBERED = 2000


@dataclass(slots=True, eq=False)
class Entry:
    """One file, which keeps its entry when it is renamed. note: its marks as they were stored;
    sent: up to where Kafka has it. archive: the file is read through something, so that sent
    counts what comes out, and the marks are of the whole file."""

    id: str
    path: str
    stream: str
    device: int
    inode: int
    marks: Marks = field(default_factory=Marks)
    note: dict[str, Any] | None = None
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

    def fits(self, file: int) -> bool:
        """Whether the open file holds what was sent of this one."""
        return fit_note(self.note, file) if self.note else self.marks.fit(file)

    def as_fields(self) -> dict[str, Any]:
        """For the position file."""
        return {
            "id": self.id, "path": self.path, "stream": self.stream, "device": self.device,
            "inode": self.inode, "archive": self.archive, "sent": self.sent, "end": self.end,
            "since": self.since,
            "marks": self.note or self.marks.note(),
        }  # fmt: skip


class Book:
    """The entries of all files that are fed. Without a position file they are forgotten."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.next: dict[str, int] = {}
        self.origin: dict[str, Any] = {}
        self.changed = False
        self.clean = True

    @property
    def persists(self) -> bool:
        """Whether a restart goes on from here."""
        return False

    def begin(self, path: Path, stream: str, file: int, start: int, archive: bool = False) -> Entry:
        """An open file that was not known before, to be sent from this place on."""
        status = os.fstat(file)
        marks = Marks.of(file, status.st_size if archive else start)
        entry = Entry(
            uuid.uuid4().hex[:16], os.fsdecode(path.absolute()), stream, status.st_dev,
            status.st_ino, marks, sent=start, archive=archive,
        )  # fmt: skip
        self.entries[entry.id] = entry
        self.save()
        return entry

    def finish(self, entry: Entry, end: int | None = None) -> None:
        """It was read to its end, or is gone."""
        entry.end = entry.sent if end is None else end
        self.changed = True

    def confirmed(self, piece: Piece) -> None:
        """Kafka has this piece, and all before it."""
        entry: Entry = piece.source
        if not entry.archive:
            entry.marks.advance(piece.raw)
        entry.sent = piece.end
        self.changed = True

    def resume(self, entry: Entry, file: int) -> None:
        """The open file is that of the entry, and is read from `sent` on."""
        if not entry.archive:
            entry.marks = Marks.of(file, entry.sent)
        entry.note = None

    def of(self, path: Path, stream: str) -> list[Entry]:
        """What was begun under this name, the oldest first."""
        name = os.fsdecode(path.absolute())
        found = (e for e in self.entries.values() if _is_of(e, name, stream))
        return sorted(found, key=lambda entry: entry.since)

    def knows(self, status: os.stat_result, file: int) -> bool:
        """Whether the open file is one of those that were read."""
        return any(e.is_file(status) and e.fits(file) for e in self.entries.values())

    def save(self, clean: bool = False) -> None:
        """Keep it."""

    def close(self) -> None:
        """Let it go."""


class PositionFile(Book):
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
    def persists(self) -> bool:
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
                "next": self.next,
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
        for entry in sorted(done, key=lambda entry: entry.since)[:-REMEMBERED]:
            del self.entries[entry.id]
        return [entry.as_fields() for entry in self.entries.values()]

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
            self.next = {str(name): int(offset) for name, offset in fields["next"].items()}
            self.origin = {name: fields[name] for name in ("topic", "cluster") if name in fields}
            self.clean = bool(fields["clean"])
            self.entries = {entry.id: entry for entry in _entries(fields["files"])}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(self.path, f"{type(error).__name__}: {error}") from None


def _is_of(entry: Entry, path: str, stream: str) -> bool:
    return entry.path == path and entry.stream == stream and not entry.archive


def _entries(files: Iterable[dict[str, Any]]) -> Iterable[Entry]:
    for each in files:
        note = each["marks"]
        (_, _), (_, _) = note["head"], note["last"]
        yield Entry(
            str(each["id"]), str(each["path"]), str(each["stream"]), int(each["device"]),
            int(each["inode"]), note=note, sent=int(each["sent"]), archive=bool(each["archive"]),
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
