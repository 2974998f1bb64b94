"""Partials: whether a text is a part of a line, as container runtimes cut long lines.

The parts are joined by what all texts without a line break at their end are joined by: the next
text of the stream goes on where they end. Knows the fields that say so; no streams.
"""

from typing import Any

FLAGS = ("logtag", "_p", "flags")
"""Where Fluent Bit's parsers put the P or F of a container runtime."""
PIECE = range(16_384, 16_391)
"""Docker cuts lines at so many bytes; half a character at the cut becomes U+FFFD."""


def ends_line(record: Any) -> bool:
    """Whether the record says that it is the last part of its line, though it may be empty."""
    return isinstance(record, dict) and any(record.get(name) == "F" for name in FLAGS)


def is_partial(record: Any, text: str, how: str) -> bool:
    """how: `newline` if every whole line ends with a line break, as in Docker's own files, else
    `flags`: then a text without one is a part if the record says so, or for its size."""
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
