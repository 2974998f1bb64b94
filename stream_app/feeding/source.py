"""Source: what is fed, and how.

Knows names; opens nothing.
"""

import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stream_app.feeding.checkpoints import Checkpoints
from stream_app.feeding.chunking import RecordRules
from stream_app.feeding.content import STANDARD_INPUT


class Source(NamedTuple):
    """A file and the stream that it goes into."""

    path: Path
    stream: str
    follow: bool = False


def _ignore(_: str) -> None:
    pass


@dataclass(frozen=True)
class ReadOptions:
    """last: so many lines of what is there are read, None for all. say: told what a person should
    know; complain: what was not read."""

    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    last_lines: int | None = None
    rules: RecordRules = field(default_factory=RecordRules)
    notify: Callable[[str], None] = _ignore
    report_error: Callable[[str], None] = _ignore


def is_piped(path: Path) -> bool:
    """Whether it can only be read as it comes."""
    if str(path) == STANDARD_INPUT:
        return True
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False
