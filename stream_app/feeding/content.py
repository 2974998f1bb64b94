"""Content: a file's text as a stream of bytes, decompressed and with transcripts converted.

For input that is read once, from beginning to end: archives, transcripts and pipes.
"""

import asyncio
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from stream_app.feeding.compression import decompress
from stream_app.feeding.file_types import HEAD_BYTES, TextFormat, detect_compression, detect_text
from stream_app.feeding.start_offset import skip_hole
from stream_app.feeding.transcripts import is_transcript, read_records

READ_BYTES = 65_536
STANDARD_INPUT = "-"
_POLL_SECONDS = 0.2


class FileType(NamedTuple):
    """What a regular file is. compression: its name, or empty."""

    compression: str
    is_transcript: bool
    text: TextFormat

    @property
    def needs_extraction(self) -> bool:
        """Whether the text is not simply the file's bytes."""
        return bool(self.compression) or self.is_transcript


def inspect(path: Path) -> FileType:
    """Detect the file's type from its first bytes.

    Raises OSError if it cannot be read, ArchiveError if its compression is damaged from the start.
    """
    with path.open("rb") as file:
        hole, head = skip_hole(file.fileno())
        compression = "" if hole else detect_compression(head)
        content = decompress(compression, file.read) if compression else _blocks(file.read)
        if compression:
            held = next(content, b"")
            head, content = held[:HEAD_BYTES], chain((held,), content)
        return FileType(compression, is_transcript(head, content), detect_text(head))


def extract(path: Path) -> Iterator[bytes]:
    """A regular file's text: UTF-8 for a transcript, else in the file's own encoding.

    Raises ArchiveError where it becomes unreadable; what comes before was yielded.
    """
    file_type = inspect(path)
    with path.open("rb") as file:
        read = file.read
        content = (
            decompress(file_type.compression, read) if file_type.compression else _blocks(read)
        )
        yield from read_records(content) if file_type.is_transcript else content


def pipe_content(path: Path, follow: bool = False) -> AsyncIterator[bytes]:
    """The content of standard input, a pipe or a device, decompressed if it is compressed.

    follow: keep reading when the writer closes the pipe, for the next writer.
    """
    return _from_thread(lambda: _read_pipe(path, follow))


async def in_thread(content: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The same content, read in a thread so that the event loop does not wait for the disk."""
    while (data := await asyncio.to_thread(next, content, None)) is not None:
        yield data


def _read_pipe(path: Path, follow: bool) -> Iterator[bytes]:
    standard = str(path) == STANDARD_INPUT
    file = os.dup(0) if standard else os.open(path, os.O_RDONLY)
    try:
        head = os.read(file, READ_BYTES)
        compression = detect_compression(head)
        if not compression:
            if head:
                yield head
            yield from _blocks(lambda size: os.read(file, size))
            while follow:
                time.sleep(_POLL_SECONDS)
                yield from _blocks(lambda size: os.read(file, size))
            return
        first = [head]
        yield from decompress(
            compression, lambda size: first.pop() if first else os.read(file, size)
        )
    finally:
        os.close(file)


def _blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while data := read(READ_BYTES):
        yield data


async def _from_thread(create: Callable[[], Iterator[Any]]) -> AsyncIterator[Any]:
    """Yield what an iterator yields in a daemon thread: it may block for ever, and still one Ctrl-C
    ends the process."""
    loop, slots = asyncio.get_running_loop(), queue.Queue[None](2)
    items: asyncio.Queue[tuple[Any, BaseException | None, bool]] = asyncio.Queue()

    def put(value: Any, error: BaseException | None = None, last: bool = False) -> None:
        try:
            loop.call_soon_threadsafe(items.put_nowait, (value, error, last))
        except RuntimeError:  # the loop is closed: nothing is read any more
            raise SystemExit from None

    def run() -> None:
        try:
            for value in create():
                slots.put(None)
                put(value)
            put(None, last=True)
        except Exception as error:
            put(None, error, True)

    threading.Thread(target=run, name="xl3m-feed-pipe", daemon=True).start()
    while True:
        value, error, last = await items.get()
        if error:
            raise error
        if last:
            return
        slots.get_nowait()
        yield value
