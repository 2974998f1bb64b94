"""Discovery: the files that names, folders and patterns stand for, each with its stream.

A file that is named twice is fed once. A file that cannot be fed is listed with the reason.
"""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stream_app.feeding.compression import ArchiveError
from stream_app.feeding.content import STANDARD_INPUT, inspect
from stream_app.feeding.file_types import strip_suffix
from stream_app.feeding.rotation import is_rotated
from stream_app.feeding.source import Source, is_piped

_PATTERN = set("*?[")


@dataclass
class Discovered:
    """sources: files to feed; refused: files named by the user that cannot be fed, with the
    reason; skipped: such files of a folder or pattern; unmatched: names that match nothing."""

    sources: list[Source] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)


def discover(
    names: Iterable[str], follow: bool, stream: str | None = None, known: Iterable[Path] = ()
) -> Discovered:
    """Find the files of the names, in order.

    stream: send all to this stream; known: paths that are already handled, and left out.
    """
    found, seen = Discovered(), set[object]()
    skipped = set(known)
    for name in names:
        paths = list(_named(name, follow))
        if not paths:
            found.unmatched.append(name)
        for path, named_after, is_explicit in paths:
            if path in skipped or (identity := _identity(path)) in seen:
                continue
            seen.add(identity)
            if why := _refusal(path, follow):
                if is_explicit:
                    found.refused.append(f"{path}: {why}")
                else:
                    found.skipped[path] = why
                continue
            found.sources.append(Source(path, stream or _stream_name(path, named_after), follow))
    found.sources = list(_in_order(found.sources))
    return found


def _named(name: str, follow: bool) -> Iterator[tuple[Path, Path, bool]]:
    """The files of a name: path, the path its stream is named after, whether the user named it."""
    path = Path(name)
    if name == STANDARD_INPUT:
        yield path, Path("stdin"), True
    elif path.is_dir():
        yield from _in_folder(path)
    elif os.path.lexists(path):
        yield path, Path(path.name), True
    elif _PATTERN & set(name):
        for each in sorted(map(Path, glob.glob(name, recursive=True))):
            if not each.is_dir():
                yield each, each.relative_to(_plain_part(path)), False
    elif follow:
        yield path, Path(path.name), True


def _plain_part(pattern: Path) -> Path:
    """The pattern's deepest parent folder without wildcards."""
    for folder in pattern.parents:
        if not _PATTERN & set(str(folder)):
            return folder
    return Path()


def _in_folder(folder: Path) -> Iterator[tuple[Path, Path, bool]]:
    found = (Path(root, each) for root, _, files in os.walk(folder) for each in files)
    for path in sorted(found):
        if path.is_file() or not path.exists():
            yield path, path.relative_to(folder), False


def _stream_name(path: Path, named_after: Path) -> str:
    """The stream's name: the file's, as text, without the suffix of its compression."""
    name = os.fsencode(named_after).decode(errors="replace")
    bare = strip_suffix(name)
    if bare == name or not path.is_file():
        return name
    return bare if inspect(path).compression else name


def _refusal(path: Path, follow: bool) -> str:
    """Why the file cannot be fed; empty if it can."""
    if str(path) == STANDARD_INPUT:
        return ""
    try:
        if is_piped(path):
            if path.is_socket():
                return "a socket, not a file"
            return "" if os.access(path, os.R_OK) else "Permission denied"
        return inspect(path).text.refusal
    except FileNotFoundError:
        return "" if follow and not path.is_symlink() else "the file does not exist"
    except ArchiveError:
        return ""  # its readable part is sent, and the error reported
    except OSError as error:
        return error.strerror or str(error)


def _identity(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _in_order(sources: list[Source]) -> Iterator[Source]:
    """The sources of one stream in the order they were written; rotated files are not followed."""
    paths = {source.path for source in sources}
    streams: dict[str, list[Source]] = {}
    for source in sources:
        streams.setdefault(source.stream, []).append(source)
    for group in streams.values():
        rotated = {source.path for source in group if _is_rotation(source.path, paths)}
        for source in sorted(group, key=lambda each: _write_order(each.path, each.path in rotated)):
            yield source._replace(follow=source.follow and source.path not in rotated)


def _is_rotation(path: Path, paths: set[Path]) -> bool:
    """Whether the file is a rotated version of one of the paths."""
    name = path.name
    bases = (path.with_name(name[:at]) for at in range(1, len(name)) if name[at] in ".-_")
    return any(base in paths and is_rotated(path, base) for base in bases)


def _write_order(path: Path, was_rotated: bool) -> tuple[bool, float]:
    if not was_rotated:
        return True, 0.0
    try:
        return False, path.stat().st_mtime
    except OSError:
        return False, 0.0
