"""Terminal: all that is printed for people goes through here, so that nobody's text commands it.

Stream names, texts, answers and errors are written by others. What would move the cursor, change
the title, hide a line or turn the order of letters is shown as its code. Knows no part that prints.
"""

import json
import re
import sys
import time
from typing import Any, TextIO

import click

# All controls but the line feed (ESC begins the sequences, and C1 has one-byte forms of them), what
# ends a line in Unicode, what overrides the direction of writing, and halves of surrogate pairs.
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_CODE = re.compile(r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}")
LINES_APART = 2.0


def escape(text: str) -> str:
    """The text with every unsafe character but a tab, which is a space then, as its code."""
    return _UNSAFE.sub(_code, text.replace("\r\n", "\n").replace("\t", " "))


def one_line(text: str) -> str:
    """The same in a single line."""
    return escape(text).replace("\n", r"\x0a")


def name_shown(name: str) -> str:
    """A stream's name in a single line, every unsafe character as its code: what `name_meant`
    understands."""
    return _UNSAFE.sub(_code, name).replace("\n", r"\x0a")


def name_meant(text: str) -> str:
    """The name that is shown so: the codes of unsafe characters are these characters."""
    return _CODE.sub(_unsafe_character, text)


def as_json(fields: Any, ascii_only: bool = False) -> str:
    """One line of JSON that is safe to print, and says exactly what the fields say."""
    text = json.dumps(fields, ensure_ascii=ascii_only)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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


def _unsafe_character(code: re.Match[str]) -> str:
    """The character of a code, if it would be shown as one; else what stands there."""
    character = chr(int(code[0][2:], 16))
    is_text = not "\ud800" <= character <= "\udfff"
    is_shown_so = character == "\n" or bool(_UNSAFE.fullmatch(character))
    return character if is_text and is_shown_so else code[0]


def _code(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
