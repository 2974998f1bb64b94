"""Terminal: all that is printed for people goes through here, so that nobody's text commands it.

Stream names, texts, answers and errors are written by others. What would move the cursor, change
the title, hide a line or turn the order of letters is shown as its code. Knows no part that prints.
"""

import json
import re
from typing import Any

import click

# All controls but the line feed (ESC begins the sequences, and C1 has one-byte forms of them), what
# ends a line in Unicode, what overrides the direction of writing, and halves of surrogate pairs.
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def shown(text: str) -> str:
    """The text with every unsafe character but a tab, which is a space then, as its code."""
    return _UNSAFE.sub(_code, text.replace("\r\n", "\n").replace("\t", " "))


def in_line(text: str) -> str:
    """The same in a single line."""
    return shown(text).replace("\n", r"\x0a")


def as_json(fields: Any) -> str:
    """One line of JSON that is safe to print, and says exactly what the fields say."""
    text = json.dumps(fields, ensure_ascii=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print the text."""
    click.echo(shown(text), nl=nl, err=err)


def say_json(fields: Any) -> None:
    """Print the fields as a line of JSON."""
    click.echo(as_json(fields))


def _code(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
