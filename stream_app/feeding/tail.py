"""Tail: where the last lines of a file begin, as `tail -n` counts them.

Knows open files and encodings; reads from the end, a block at a time.
"""

import os

from stream_app.feeding.pieces import last_line_end

_BACK_BYTES = 65_536


def last_lines(file: int, count: int, encoding: str) -> int:
    """Where the last `count` lines of a file begin; a last one without an end counts. None of
    them: where the line begins that somebody is writing."""
    size, width = os.fstat(file).st_size, len("\n".encode(encoding))
    at = end = size - size % width
    wanted = count + 1 if _ends_a_line(file, end, encoding) else max(count, 1)
    while at > 0:
        start = max(0, at - _BACK_BYTES)
        block = os.pread(file, at - start, start)
        place = len(block)
        while found := last_line_end(block, encoding, place):
            wanted -= 1
            if not wanted:
                return start + found
            place = found - 1
        at = start
    return 0


def _ends_a_line(file: int, end: int, encoding: str) -> bool:
    newline = "\n".encode(encoding)
    return os.pread(file, len(newline), max(0, end - len(newline))) == newline
