"""Source: a file or pipe to feed, its stream, and how it is read."""

import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stream_app.feeding.checkpoints import Checkpoints
from stream_app.feeding.chunking import RecordRules
from stream_app.feeding.content import STANDARD_INPUT


class Source(NamedTuple):
    """A path and the stream it is sent to; follow: keep reading what is appended."""

    path: Path
    stream: str
    follow: bool = False


def _ignore(_: str) -> None:
    pass


@dataclass(frozen=True)
class ReadOptions:
    """last_lines: of the existing content, read only that many last lines (None: all). notify:
    called with messages for the user; report_error: with what could not be read."""

    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    last_lines: int | None = None
    rules: RecordRules = field(default_factory=RecordRules)
    notify: Callable[[str], None] = _ignore
    report_error: Callable[[str], None] = _ignore


def is_piped(path: Path) -> bool:
    """Whether it is a pipe, a device or standard input, and can only be read once."""
    if str(path) == STANDARD_INPUT:
        return True
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False
