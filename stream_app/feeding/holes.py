"""Holes: NUL bytes that a file begins with, cut while its writer went on at the old place.

`command > app.log` does so under a rotation that copies and cuts. Knows open files; no text.
"""

import os
from contextlib import suppress

from stream_app.feeding.kinds import HEAD_BYTES

# What no text begins with may begin with fewer.
_LEAST = 16
_BLOCK_BYTES = 1 << 20


def beginning(file: int) -> tuple[int, bytes]:
    """How many bytes of an open file are a hole, and how it goes on."""
    head = os.pread(file, HEAD_BYTES, 0)
    if head[:_LEAST].strip(b"\0") or len(head) < _LEAST:
        return 0, head
    hole = _end_of_hole(file)
    return hole, os.pread(file, HEAD_BYTES, hole)


def _end_of_hole(file: int) -> int:
    """The first byte that is not NUL; the file's size, if there is none."""
    at = 0
    with suppress(OSError):  # nothing but a hole, or a file system without holes
        at = os.lseek(file, 0, os.SEEK_DATA)
    while data := os.pread(file, _BLOCK_BYTES, at):
        kept = data.lstrip(b"\0")
        at += len(data) - len(kept)
        if kept:
            break
    return at
