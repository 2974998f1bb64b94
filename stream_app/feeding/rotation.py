"""Rotation: where a text went that had a name, and which files had the name after it.

A log is renamed and a new one begun, or it is copied and cut. Both leave files beside it whose
names say their order, `app.log.2` before `app.log.1`, or a date. What holds:

1. Of the files beside a followed one, those in the book were read or passed over; any other was
   never read. So what came after a text is what is not in the book and, by its name, is newer.
2. A text lies in the oldest file that holds what was read of it: if an older one that is not in
   the book holds it too, that is the copy that was made before the file itself was cut. Only a
   copy of what the file still holds (it may be cut in a moment) is none.
3. All files are opened first and looked at then, and again if one was renamed meanwhile: each is
   seen once, and what is read later is what was seen.

Knows folders and marks; reads no text.
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
"""Whether an open file holds what was read of a text."""

# Fewer bytes than this do not tell a copy from another file that begins alike.
TELLING_BYTES = 64
# Files that were written before the first start, less what clocks of disks differ, are the past.
_CLOCK_SECONDS = 2.0
_ROTATED = re.compile(r"[.\-_].+")
_NUMBER = re.compile(r"\.(\d{1,5})")
_DATE = re.compile(r"[.\-_]\d{4}[.\-_]?\d\d(?:[.\-_T:]?\d+)*")
_TRIES = 200
_TRY_SECONDS = 0.01


class Candidate(NamedTuple):
    """A file that is open, so that it may be renamed meanwhile."""

    path: Path
    fd: int

    def has_order(self, original: Path) -> bool:
        """Whether the name says where in the order the file is."""
        return _age(self.path, original)[0] > 0


class Location(NamedTuple):
    """Where a text is now, None if it is gone; and what had its name later and has it no more,
    the oldest first."""

    found: Candidate | None
    later: list[Candidate]


def close(files: Iterable[Candidate | None]) -> None:
    """Let the files go."""
    for each in files:
        if each:
            os.close(each.fd)


def is_rotated(path: Path, original: Path) -> bool:
    """Whether the name is that of the original with something behind it: `app.log.1`."""
    name = path.name.removeprefix(original.name)
    same = path.parent == original.parent and path.name.startswith(original.name)
    return same and bool(_ROTATED.fullmatch(name))


def rotated_files(original: Path) -> list[Path]:
    """The files of its folder that are called so, in order; those whose names say none first."""
    try:
        with os.scandir(original.parent) as found:
            paths = [original.parent / each.name for each in found if each.is_file()]
    except OSError:
        return []
    mine = (path for path in paths if is_rotated(path, original))
    return sorted(mine, key=lambda path: _age(path, original))


def ignore_existing(path: Path, stream: str, book: Checkpoints) -> None:
    """What is beside a file before it is read for the first time is not of what is followed."""
    for each in rotated_files(path):
        with _opened(each) as file:
            if file is not None and not book.contains(stream, file):
                book.ignore(stream, file)


def locate(entry: Checkpoint, fits: Matches, path: Path, book: Checkpoints) -> Location:
    """The text of the entry, and what came after it."""
    for _ in range(_TRIES):
        before = _inodes(path)
        files = list(_all_opened(path))
        if _inodes(path) == before:
            return _kept(files, _of(files, entry, fits, path, book))
        close(files)
        time.sleep(_TRY_SECONDS)
    return Location(None, [])


def is_superseded(
    entry: Checkpoint, fits: Matches, file: int, path: Path, book: Checkpoints
) -> bool:
    """Whether the open file, which fits, is not the text of the entry but a later one."""
    found, later = locate(entry, fits, path, book)
    is_other = found is not None and not os.path.sameopenfile(found.fd, file)
    close([found, *later])
    return is_other


def _of(
    files: list[Candidate], entry: Checkpoint, fits: Matches, path: Path, book: Checkpoints
) -> Location:
    """Of all files, the oldest first, the one of the entry, and those that are newer."""
    known = {each for each in files if book.contains(entry.stream, each.fd, except_for=entry)}
    mine = (each for each in files if entry.is_file(os.fstat(each.fd)) and each not in known)
    own = next((each for each in mine if fits(each.fd)), None)
    fresh = [
        each for each in files
        if each is own or (
            each not in known and each.path != path and _is_after_start(each, entry, book)
        )
    ]  # fmt: skip
    found = _text_of(entry, fits, own, fresh, path)
    newer = files[files.index(found) + 1 :] if found else files
    last = files[-1] if files and files[-1].path == path else None
    return Location(found, [
        each for each in newer
        if each in fresh and each.has_order(path) and not (last and _holds(last, each))
    ])  # fmt: skip


def _text_of(
    entry: Checkpoint, fits: Matches, own: Candidate | None, fresh: list[Candidate], path: Path
) -> Candidate | None:
    """The file that has the text: an older copy, else its own, else a copy by any name."""
    if entry.done:
        return own
    for each in fresh:  # the oldest first
        if each is own:
            return own
        is_copy = each.has_order(path) and fits(each.fd)
        if is_copy and not (own and _holds(own, each)):
            return each
    if own or entry.sent < TELLING_BYTES:
        return own
    copies = [each for each in fresh if fits(each.fd)]
    return max(copies, key=lambda each: os.fstat(each.fd).st_size, default=None)


def _holds(file: Candidate, other: Candidate) -> bool:
    """Whether the file begins with all that the other has."""
    return Fingerprint.of(other.fd, os.fstat(other.fd).st_size).matches(file.fd)


def _is_after_start(each: Candidate, entry: Checkpoint, book: Checkpoints) -> bool:
    """Whether it was written to since the name was first read, and is no archive."""
    first = next(iter(book.find(Path(entry.path), entry.stream)), entry)
    is_new = os.fstat(each.fd).st_mtime >= first.since - _CLOCK_SECONDS
    return is_new and not detect_compression(os.pread(each.fd, 16, 0))


def _kept(files: list[Candidate], found: Location) -> Location:
    """Close those that are not wanted."""
    close(each for each in files if each is not found.found and each not in found.later)
    return found


def _all_opened(path: Path) -> Iterator[Candidate]:
    """The oldest first; the name itself is the last."""
    for each in (*rotated_files(path), path):
        with suppress(OSError):
            yield Candidate(each, os.open(each, os.O_RDONLY | os.O_NONBLOCK))


def _inodes(path: Path) -> dict[Path, int]:
    found: dict[Path, int] = {}
    for each in (path, *rotated_files(path)):
        with suppress(OSError):
            found[each] = each.stat().st_ino
    return found


def _age(path: Path, original: Path) -> tuple[int, int, str]:
    """Greater for what is newer: dates, then numbers."""
    suffix = path.name.removeprefix(original.name)
    if number := _NUMBER.fullmatch(suffix):
        return 2, -int(number[1]), ""
    return int(bool(_DATE.fullmatch(suffix))), 0, suffix


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """The file, or None if it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)
