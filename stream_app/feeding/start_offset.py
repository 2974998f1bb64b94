"""Where to start reading an open file: behind a leading hole, or at its last lines.

`command > app.log` leaves a hole when log rotation copies the file and truncates it: the writer
goes on at its old offset, and all before that is NUL bytes. Works on file descriptors.
"""

import os
from contextlib import suppress

from stream_app.feeding.chunking import last_line_end
from stream_app.feeding.file_types import HEAD_BYTES

# Fewer leading NUL bytes than this are taken as content, not as a hole.
_MIN_HOLE_BYTES = 16
_SCAN_BYTES = 1 << 20
_BACKWARD_BYTES = 65_536


def skip_hole(fd: int) -> tuple[int, bytes]:
    """The size of the leading hole in bytes (0 if there is none), and the first bytes behind it."""
    head = os.pread(fd, HEAD_BYTES, 0)
    if head[:_MIN_HOLE_BYTES].strip(b"\0") or len(head) < _MIN_HOLE_BYTES:
        return 0, head
    hole = _end_of_hole(fd)
    return hole, os.pread(fd, HEAD_BYTES, hole)


def _end_of_hole(fd: int) -> int:
    """The offset of the first byte that is not NUL; the file's size if there is none."""
    offset = 0
    with suppress(OSError):  # the file is one hole, or the file system has no SEEK_DATA
        offset = os.lseek(fd, 0, os.SEEK_DATA)
    while data := os.pread(fd, _SCAN_BYTES, offset):
        content = data.lstrip(b"\0")
        offset += len(data) - len(content)
        if content:
            break
    return offset


def last_lines(fd: int, count: int, encoding: str) -> int:
    """The offset at which the last `count` lines begin, as `tail -n` counts them.

    A last line without a line end counts. With count 0: the start of the unfinished last line.
    """
    size, width = os.fstat(fd).st_size, len("\n".encode(encoding))
    block_end = end = size - size % width
    remaining = count + 1 if _ends_with_newline(fd, end, encoding) else max(count, 1)
    while block_end > 0:
        start = max(0, block_end - _BACKWARD_BYTES)
        block = os.pread(fd, block_end - start, start)
        before = len(block)
        while found := last_line_end(block, encoding, before):
            remaining -= 1
            if not remaining:
                return start + found
            before = found - 1
        block_end = start
    return 0


def _ends_with_newline(fd: int, end: int, encoding: str) -> bool:
    newline = "\n".encode(encoding)
    return os.pread(fd, len(newline), max(0, end - len(newline))) == newline
