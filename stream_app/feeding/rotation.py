"""Rotation: where a file went that had a name, and what came between it and the one there now.

Knows folders and marks; reads no text.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from stream_app.feeding.marks import Marks
from stream_app.feeding.positions import Book, Entry

# Fewer bytes than this do not tell a copy from another file that begins alike.
TELLING_BYTES = 64
# A copy is written when its original was there already.
_CLOCK_SECONDS = 2.0
_ROTATED = re.compile(r"[.\-_].+")
_TRIES = 200
_TRY_SECONDS = 0.01
_NUMBER = re.compile(r"\.(\d+)")


def is_rotated(path: Path, original: Path) -> bool:
    """Whether the name is that of the original with something behind it: `app.log.1`."""
    name = path.name.removeprefix(original.name)
    same = path.parent == original.parent and path.name.startswith(original.name)
    return same and bool(_ROTATED.fullmatch(name))


def rotated(original: Path) -> list[Path]:
    """The files of its folder that are called so."""
    try:
        with os.scandir(original.parent) as found:
            paths = [original.parent / each.name for each in found if each.is_file()]
    except OSError:
        return []
    return sorted(path for path in paths if is_rotated(path, original))


class File(NamedTuple):
    """A file that is open, so that it may be renamed meanwhile."""

    path: Path
    file: int


def open_found(entry: Entry, path: Path) -> File | None:
    """The file of the entry, wherever it is; None if it is gone."""
    found = _steady(path, lambda: [find(entry, path)])
    return found[0] if found else None


def open_later(entry: Entry, path: Path) -> list[File]:
    """The files that had the name after that of the entry, and have it no more."""

    def look() -> list[Path | None]:
        old = find(entry, path)
        return [*between(old, path)] if old else []

    return _steady(path, look)


def open_copy(marks: Marks, entry: Entry, path: Path, book: Book) -> list[File]:
    """The copy of what was cut, and the files that had the name after it; the copy first."""

    def look() -> list[Path | None]:
        copy = copy_of(marks, entry, path, book)
        return [copy, *between(copy, path)] if copy else []

    return _steady(path, look)


def _steady(path: Path, look: Callable[[], list[Path | None]]) -> list[File]:
    """What is found while nobody renames files of the folder, opened."""
    for _ in range(_TRIES):
        before, files = _inodes(path), list[File]()
        try:
            found = filter(None, look())
            files.extend(File(each, os.open(each, os.O_RDONLY)) for each in found)
            if _inodes(path) == before:
                return files
        except FileNotFoundError:
            pass
        for each in files:
            os.close(each.file)
        time.sleep(_TRY_SECONDS)
    return []


def _inodes(path: Path) -> dict[Path, int]:
    found: dict[Path, int] = {}
    for each in (path, *rotated(path)):
        with suppress(OSError):
            found[each] = each.stat().st_ino
    return found


def find(entry: Entry, path: Path) -> Path | None:
    """Where the file of this entry is now: under its name, or rotated away; as itself, else as a
    copy. None if it is gone, or was cut."""
    candidates = [path, *rotated(path)]
    for each in candidates:
        with _opened(each) as file:
            if file is not None and entry.is_file(os.fstat(file)) and entry.fits(file):
                return each
    if entry.sent < TELLING_BYTES:
        return None
    copies = [each for each in candidates if _fits(entry, each)]
    return max(copies, key=lambda each: each.stat().st_size, default=None)


def copy_of(marks: Marks, entry: Entry, path: Path, book: Book) -> Path | None:
    """The copy that was made of a file before it was cut, if it holds more than was read."""
    found = []
    for each in rotated(path):
        with _opened(each) as file:
            if file is None or not marks.fit(file):
                continue
            status = os.fstat(file)
            later = status.st_mtime >= entry.since - _CLOCK_SECONDS
            if later and not entry.is_file(status) and not book.knows(status, file):
                found.append((status.st_size, each))
    return max(found)[1] if found else None


def between(old: Path, path: Path) -> list[Path]:
    """The files that had the name after the one that is called `old` now, the oldest first."""
    number = _NUMBER.fullmatch(old.name.removeprefix(path.name))
    if number:
        names = [f"{path.name}.{count}" for count in range(int(number[1]) - 1, 0, -1)]
        return [path.with_name(name) for name in names if path.with_name(name).is_file()]
    if old == path or not is_rotated(old, path):
        return []
    alike = re.sub(r"\d+", lambda found: rf"\d{{{len(found[0])}}}", re.escape(old.name))
    later = [each for each in rotated(path) if re.fullmatch(alike, each.name) and each > old]
    return later if re.search(r"\d{6}", old.name) else []


def _fits(entry: Entry, path: Path) -> bool:
    with _opened(path) as file:
        return file is not None and entry.fits(file)


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
