"""Escaping: makes text written by others safe to print on a terminal.

Stream names, texts, answers and errors come from outside. A character that would move the cursor,
change the window's title, hide a line or reverse the direction of writing is shown as its code.
"""

import json
import re
from typing import Any

# All control characters but the line feed (ESC starts the terminal's sequences, and C1 has one-byte
# forms of them), Unicode's line separators, overrides of the writing direction, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_CODE = re.compile(r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}")


def escape(text: str) -> str:
    """The text with unsafe characters as codes; a tab becomes a space."""
    return _UNSAFE.sub(_to_code, text.replace("\r\n", "\n").replace("\t", " "))


def one_line(text: str) -> str:
    """The escaped text on one line."""
    return escape(text).replace("\n", r"\x0a")


def escape_name(name: str) -> str:
    """A stream's name on one line; `unescape_name` undoes it."""
    return _UNSAFE.sub(_to_code, name).replace("\n", r"\x0a")


def unescape_name(text: str) -> str:
    """The name that `escape_name` shows as this text."""
    return _CODE.sub(_to_character, text)


def as_json(fields: Any, ascii_only: bool = False) -> str:
    """One line of JSON that is safe to print; parsing it gives exactly the fields."""
    text = json.dumps(fields, ensure_ascii=ascii_only)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _to_character(code: re.Match[str]) -> str:
    """The character of a code if escaping would have written that code, else the code itself."""
    character = chr(int(code[0][2:], 16))
    is_text = not "\ud800" <= character <= "\udfff"
    is_escaped = character == "\n" or bool(_UNSAFE.fullmatch(character))
    return character if is_text and is_escaped else code[0]


def _to_code(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
