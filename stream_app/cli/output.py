"""Output: prints for people; everything the commands print goes through here.

Text written by others is escaped (`runtime.escape`), so that it cannot control the terminal.
"""

import sys
import time
from typing import Any, TextIO

import click

from stream_app.runtime.escape import as_json, escape, one_line

LINES_APART = 2.0


def prepare() -> None:
    """Let standard output and error write characters that their encoding lacks as codes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not a replacement stream in another program
            stream.reconfigure(errors="backslashreplace")


def echo(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print the text, escaped."""
    click.echo(escape(text), nl=nl, err=err)


def echo_json(fields: Any) -> None:
    """Print the fields as one line of JSON, in ASCII if the output is not UTF-8."""
    click.echo(as_json(fields, ascii_only=not _is_utf8(sys.stdout)))


class StatusLine:
    """A status line on standard error, overwritten in place.

    Where that is not a terminal: a new line at most every LINES_APART seconds.
    """

    def __init__(self) -> None:
        self._in_place = sys.stderr.isatty()
        self._printed_at = 0.0
        self._is_shown = False

    def show(self, text: str) -> None:
        """Replace the text shown before."""
        if self._in_place:
            click.echo(f"\r\x1b[K{one_line(text)}", nl=False, err=True)
            self._is_shown = True
        elif not self._printed_at or time.monotonic() - self._printed_at >= LINES_APART:
            echo(one_line(text), err=True)
            self._printed_at = time.monotonic()

    def clear(self) -> None:
        """Erase the line, on a terminal."""
        if self._is_shown:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._is_shown = False


def _is_utf8(stream: TextIO) -> bool:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig")
