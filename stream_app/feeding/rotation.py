"""Rotation: where a file went that had a name, and what came between it and the one there now.

Knows folders and marks; reads no text.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stream_app.feeding.marks import Marks
from stream_app.feeding.positions import Book, Entry

# Fewer bytes than this do not tell a copy from another file that begins alike.
TELLING_BYTES = 64
# A copy is written when its original was there already.
_CLOCK_SECONDS = 2.0
_ROTATED = re.compile(r"[.\-_].+")
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
