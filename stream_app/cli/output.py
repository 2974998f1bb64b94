"""Terminal: all that is printed for people goes through here, so that nobody's text commands it.

Stream names, texts, answers and errors are written by others. What would move the cursor, change
the title, hide a line or turn the order of letters is shown as its code. Knows no part that prints.
"""

import sys
import time
from typing import Any, TextIO

import click

from stream_app.runtime.escape import as_json, escape, one_line

LINES_APART = 2.0


def prepare() -> None:
    """What standard output and standard error have no letter for, in whatever encoding they are,
    is written as its code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what stands in for them in another program
            stream.reconfigure(errors="backslashreplace")


def echo(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print the text."""
    click.echo(escape(text), nl=nl, err=err)


def echo_json(fields: Any) -> None:
    """Print the fields as a line of JSON; in plain ASCII where the output is not UTF-8."""
    click.echo(as_json(fields, ascii_only=not _is_utf8(sys.stdout)))


class StatusLine:
    """A line on standard error that is written over; where that is no terminal, one below the
    other, but not more often than a person reads."""

    def __init__(self) -> None:
        self._in_place = sys.stderr.isatty()
        self._said = 0.0
        self._is_shown = False

    def show(self, text: str) -> None:
        """Write it in the place of what was shown before."""
        if self._in_place:
            click.echo(f"\r\x1b[K{one_line(text)}", nl=False, err=True)
            self._is_shown = True
        elif not self._said or time.monotonic() - self._said >= LINES_APART:
            echo(one_line(text), err=True)
            self._said = time.monotonic()

    def clear(self) -> None:
        """Leave an empty line, where it can be written over."""
        if self._is_shown:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._is_shown = False


def _is_utf8(stream: TextIO) -> bool:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
