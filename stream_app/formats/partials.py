"""Partials: whether a text is only a part of a line. Container runtimes split long lines.

Such a text gets no line break at its end, so the next text of the stream continues the line.
"""

from typing import Any

FLAGS = ("logtag", "_p", "flags")
"""Fields in which parsers of Fluent Bit put the flag of a container runtime: P or F."""
PIECE = range(16_384, 16_391)
"""Docker splits lines at 16 KiB; half a character at the cut becomes U+FFFD."""


def ends_line(record: Any) -> bool:
    """Whether the record is marked as the last part of its line; it may be empty."""
    return isinstance(record, dict) and any(record.get(name) == "F" for name in FLAGS)


def is_partial(record: Any, text: str, how: str) -> bool:
    """Whether the text is a part of a line. how: `newline` if each whole line ends with a line
    break, as in Docker's own files; `flags` if the record's flags say so, or the size of the
    text."""
    fields = record if isinstance(record, dict) else {}
    for name in FLAGS:
        if (flag := fields.get(name)) in ("P", "F"):
            return bool(flag == "P")
    if "partial_message" in fields:  # by Docker's fluentd driver
        return str(fields.get("partial_last")).lower() != "true"
    if text.endswith("\n"):
        return False
    if how == "newline" and "container_id" not in fields:
        return True
    return len(text.encode()) in PIECE
