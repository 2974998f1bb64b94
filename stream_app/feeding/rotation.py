"""Rotation: finds where a text went when its log was rotated, and which files followed it.

A log is renamed and a new one created, or it is copied and truncated. Both leave files beside it
whose names give their order: `app.log.2` before `app.log.1`, or a date. What holds:

1. Of the files beside a followed one, those with a checkpoint were read or ignored; any other was
   never read. So what came after a text is what has no checkpoint and, by its name, is newer.
2. A text is in the oldest file that holds what was read of it: if an older file without a
   checkpoint holds it, too, that is the copy made before the truncation. A copy of what the file
   still holds does not count, since the file may be truncated in a moment.
3. All files are opened first and examined then, and again if one was renamed meanwhile: each is
   seen once, and what is read later is what was examined.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from stream_app.feeding.checkpoints import Checkpoint, Checkpoints
from stream_app.feeding.file_types import detect_compression
from stream_app.feeding.fingerprint import Fingerprint

Matches = Callable[[int], bool]
"""Tells whether an open file holds what was read of a text."""

# Fewer bytes than this cannot tell a copy from another file with the same beginning.
MIN_COPY_BYTES = 64
# Files last written before the first start are ignored; this allows for clock differences.
_CLOCK_SECONDS = 2.0
_ROTATED = re.compile(r"[.\-_].+")
_NUMBER = re.compile(r"\.(\d{1,5})")
_DATE = re.compile(r"[.\-_]\d{4}[.\-_]?\d\d(?:[.\-_T:]?\d+)*")
_TRIES = 200
_TRY_SECONDS = 0.01


class Candidate(NamedTuple):
    """An open file and its path; it may be renamed meanwhile."""

    path: Path
    fd: int

    def has_order(self, original: Path) -> bool:
        """Whether the name has a number or a date, which gives its order."""
        return _order(self.path, original)[0] > 0


class Location(NamedTuple):
    """found: the file that has the text, None if it was deleted; later: rotated files that had its
    path after it, oldest first."""

    found: Candidate | None
    later: list[Candidate]


def close(files: Iterable[Candidate | None]) -> None:
    """Close the files."""
    for candidate in files:
        if candidate:
            os.close(candidate.fd)


def is_rotated(path: Path, original: Path) -> bool:
    """Whether the path is the original's with a suffix: `app.log.1`."""
    name = path.name.removeprefix(original.name)
    same = path.parent == original.parent and path.name.startswith(original.name)
    return same and bool(_ROTATED.fullmatch(name))


def rotated_files(original: Path) -> list[Path]:
    """The rotated files of a log, oldest first; those without number or date come before."""
    try:
        with os.scandir(original.parent) as found:
            paths = [original.parent / candidate.name for candidate in found if candidate.is_file()]
    except OSError:
        return []
    mine = (path for path in paths if is_rotated(path, original))
    return sorted(mine, key=lambda path: _order(path, original))


def ignore_existing(path: Path, stream: str, checkpoints: Checkpoints) -> None:
    """Ignore the rotated files that exist before the log is read for the first time."""
    for candidate in rotated_files(path):
        with _opened(candidate) as fd:
            if fd is not None and not checkpoints.contains(stream, fd):
                checkpoints.ignore(stream, fd)


def locate(entry: Checkpoint, matches: Matches, path: Path, checkpoints: Checkpoints) -> Location:
    """Find the text of the checkpoint, and the files that came after it."""
    for _ in range(_TRIES):
        before = _inodes(path)
        files = list(_open_all(path))
        if _inodes(path) == before:
            return _close_others(files, _select(files, entry, matches, path, checkpoints))
        close(files)
        time.sleep(_TRY_SECONDS)
    return Location(None, [])


def is_superseded(
    entry: Checkpoint, matches: Matches, file: int, path: Path, checkpoints: Checkpoints
) -> bool:
    """Whether the open file, which matches, holds a later text than the checkpoint's."""
    found, later = locate(entry, matches, path, checkpoints)
    is_other = found is not None and not os.path.sameopenfile(found.fd, file)
    close([found, *later])
    return is_other


def _select(
    files: list[Candidate],
    entry: Checkpoint,
    matches: Matches,
    path: Path,
    checkpoints: Checkpoints,
) -> Location:
    """Among all files, oldest first: the one with the text, and the newer ones."""
    known = {
        file for file in files if checkpoints.contains(entry.stream, file.fd, except_for=entry)
    }
    own = next(
        (
            file
            for file in files
            if entry.is_file(os.fstat(file.fd)) and file not in known and matches(file.fd)
        ),
        None,
    )
    fresh = [
        file for file in files
        if file is own or (
            file not in known and file.path != path and _is_after_start(file, entry, checkpoints)
        )
    ]  # fmt: skip
    found = _find_text(entry, matches, own, fresh, path)
    newer = files[files.index(found) + 1 :] if found else files
    current = files[-1] if files and files[-1].path == path else None
    return Location(found, [
        file for file in newer
        if file in fresh and file.has_order(path) and not (current and _holds(current, file))
    ])  # fmt: skip


def _find_text(
    entry: Checkpoint, matches: Matches, own: Candidate | None, fresh: list[Candidate], path: Path
) -> Candidate | None:
    """The file that has the text: an older copy, else its own file, else a copy of any name."""
    if entry.done:
        return own
    for candidate in fresh:  # oldest first
        if candidate is own:
            return own
        is_copy = candidate.has_order(path) and matches(candidate.fd)
        if is_copy and not (own and _holds(own, candidate)):
            return candidate
    if own or entry.sent < MIN_COPY_BYTES:
        return own
    copies = [candidate for candidate in fresh if matches(candidate.fd)]
    return max(copies, key=lambda candidate: os.fstat(candidate.fd).st_size, default=None)


def _holds(file: Candidate, other: Candidate) -> bool:
    """Whether the file begins with all of the other's content."""
    return Fingerprint.of(other.fd, os.fstat(other.fd).st_size).matches(file.fd)


def _is_after_start(candidate: Candidate, entry: Checkpoint, checkpoints: Checkpoints) -> bool:
    """Whether it was written after the path was first followed, and is not compressed."""
    first = next(iter(checkpoints.find(Path(entry.path), entry.stream)), entry)
    is_new = os.fstat(candidate.fd).st_mtime >= first.since - _CLOCK_SECONDS
    return is_new and not detect_compression(os.pread(candidate.fd, 16, 0))


def _close_others(files: list[Candidate], found: Location) -> Location:
    """Close the files that are not in the result."""
    close(
        candidate
        for candidate in files
        if candidate is not found.found and candidate not in found.later
    )
    return found


def _open_all(path: Path) -> Iterator[Candidate]:
    """Oldest first; the log itself comes last."""
    for candidate in (*rotated_files(path), path):
        with suppress(OSError):
            yield Candidate(candidate, os.open(candidate, os.O_RDONLY | os.O_NONBLOCK))


def _inodes(path: Path) -> dict[Path, int]:
    found: dict[Path, int] = {}
    for candidate in (path, *rotated_files(path)):
        with suppress(OSError):
            found[candidate] = candidate.stat().st_ino
    return found


def _order(path: Path, original: Path) -> tuple[int, int, str]:
    """A sort key, greater for newer files: no order, then dates, then numbers."""
    suffix = path.name.removeprefix(original.name)
    if number := _NUMBER.fullmatch(suffix):
        return 2, -int(number[1]), ""
    return int(bool(_DATE.fullmatch(suffix))), 0, suffix


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """The open file, or None if it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)
