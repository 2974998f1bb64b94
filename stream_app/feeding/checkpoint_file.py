"""Checkpoint file: the checkpoints of `xl3m feed --positions`, so that a restart continues.

It is replaced atomically after Kafka confirmed, and locked against a second feeder.
"""

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stream_app.errors import SettingsError
from stream_app.feeding.checkpoints import Checkpoint, Checkpoints
from stream_app.feeding.fingerprint import parse_hash

VERSION = 1
# Files read to their end are remembered, up to this many, so that they are not taken for new ones.
REMEMBERED = 2000


class CheckpointFile(Checkpoints):
    """Checkpoints in a file; one feeder at a time may use it.

    Raises SettingsError if the file cannot be read or another feeder uses it.
    """

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
        """Yes."""
        return True

    def save(self, clean: bool = False) -> None:
        """Replace the file atomically: after a power cut it is the old one or the new one.

        clean: all that was sent is confirmed, and nothing more will be sent.
        """
        self.changed = False
        fields = {
            "version": VERSION,
            **self.origin,
            "clean": clean,
            "next": self.next_offsets,
            "files": self._files(),
        }
        new = self.path.with_name(self.path.name + ".new")
        with new.open("w", encoding="utf-8") as file:
            file.write(json.dumps(fields, indent=1))
            file.flush()
            os.fsync(file.fileno())
        new.rename(self.path)
        _sync_folder(self.path.parent)

    def close(self) -> None:
        """Release the lock."""
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
            self.next_offsets = {str(name): int(at) for name, at in fields["next"].items()}
            self.origin = {name: fields[name] for name in ("topic", "cluster") if name in fields}
            self.clean = bool(fields["clean"])
            self.entries = {entry.id: entry for entry in _parse(fields["files"])}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(self.path, f"{type(error).__name__}: {error}") from None


def _parse(files: Iterable[dict[str, Any]]) -> Iterable[Checkpoint]:
    for fields in files:
        stored = fields["marks"]
        sent_hash = parse_hash(stored["offset"], [*stored["head"], *stored["last"]])
        yield Checkpoint(
            str(fields["id"]), str(fields["path"]), str(fields["stream"]), int(fields["device"]),
            int(fields["inode"]), sent_hash=sent_hash, sent=int(fields["sent"]),
            archive=bool(fields["archive"]), end=fields["end"], since=float(fields["since"]),
        )  # fmt: skip


def _unreadable(path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"the checkpoint file {path} cannot be used ({why}): name another, or remove it to feed "
        "all files from their beginning"
    )


def _locked(path: Path) -> int:
    """The descriptor of a locked file beside the path, since the file itself is replaced."""
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SettingsError(
            f"another `xl3m feed` uses the checkpoint file {path}: stop it, or name another file"
        ) from None
    return lock


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
