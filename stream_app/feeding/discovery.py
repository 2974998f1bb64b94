"""Sources: the files that names, folders and patterns stand for, each with its stream.

A file that is named twice is fed once. What cannot be fed is named with the reason. Knows names
and kinds; reads no further than a file's beginning.
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
    """What was found. refused: named by the user, and no text; passed_over: in a folder or of a
    pattern; empty: names that stand for nothing."""

    sources: list[Source] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)


def discover(
    names: Iterable[str], follow: bool, stream: str | None = None, known: Iterable[Path] = ()
) -> Discovered:
    """The sources, in order. known: files that need not be looked at again."""
    found, seen = Discovered(), set[object]()
    skipped = set(known)
    for name in names:
        paths = list(_named(name, follow))
        if not paths:
            found.unmatched.append(name)
        for path, called, is_chosen in paths:
            if path in skipped or (identity := _identity(path)) in seen:
                continue
            seen.add(identity)
            if why := _why_not(path, follow):
                if is_chosen:
                    found.refused.append(f"{path}: {why}")
                else:
                    found.skipped[path] = why
                continue
            found.sources.append(Source(path, stream or _stream(path, called), follow))
    found.sources = list(_in_order(found.sources))
    return found


def _named(name: str, follow: bool) -> Iterator[tuple[Path, Path, bool]]:
    """What a name stands for: each file, what its stream is called after, and whether the user
    chose this very file."""
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
    """The folder in which all lies that the pattern stands for."""
    for folder in pattern.parents:
        if not _PATTERN & set(str(folder)):
            return folder
    return Path()


def _in_folder(folder: Path) -> Iterator[tuple[Path, Path, bool]]:
    found = (Path(root, each) for root, _, files in os.walk(folder) for each in files)
    for path in sorted(found):
        if path.is_file() or not path.exists():
            yield path, path.relative_to(folder), False


def _stream(path: Path, called: Path) -> str:
    """A file's name, as text (it may be any bytes), without what says how it is compressed."""
    name = os.fsencode(called).decode(errors="replace")
    bare = strip_suffix(name)
    if bare == name or not path.is_file():
        return name
    return bare if inspect(path).compression else name


def _why_not(path: Path, follow: bool) -> str:
    """Why the file cannot be fed; nothing if it can."""
    if str(path) == STANDARD_INPUT:
        return ""
    try:
        if is_piped(path):
            if path.is_socket():
                return "a socket is no file"
            return "" if os.access(path, os.R_OK) else "Permission denied"
        return inspect(path).text.refusal
    except FileNotFoundError:
        return "" if follow and not path.is_symlink() else "there is no such file"
    except ArchiveError:
        return ""  # what can be read of it is sent, and the error said
    except OSError as error:
        return error.strerror or str(error)


def _identity(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _in_order(sources: list[Source]) -> Iterator[Source]:
    """Those of one stream one after another, the rotated ones first, as they were written; they
    are not followed."""
    paths = {source.path for source in sources}
    streams: dict[str, list[Source]] = {}
    for source in sources:
        streams.setdefault(source.stream, []).append(source)
    for mine in streams.values():
        olds = {source.path for source in mine if _is_old(source.path, paths)}
        for source in sorted(mine, key=lambda each: _age(each.path, each.path in olds)):
            yield source._replace(follow=source.follow and source.path not in olds)


def _is_old(path: Path, paths: set[Path]) -> bool:
    """Whether one of the paths is what the file was called before it was rotated away."""
    name = path.name
    bases = (path.with_name(name[:at]) for at in range(1, len(name)) if name[at] in ".-_")
    return any(base in paths and is_rotated(path, base) for base in bases)


def _age(path: Path, is_old: bool) -> tuple[bool, float]:
    if not is_old:
        return True, 0.0
    try:
        return False, path.stat().st_mtime
    except OSError:
        return False, 0.0
