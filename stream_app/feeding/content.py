"""Contents: what a file says, as a stream of bytes, whatever it is packed in.

For what is read once from beginning to end: archives, transcripts, pipes. Knows kinds; no place
to go on from.
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
_LOOK_SECONDS = 0.2


class FileType(NamedTuple):
    """How a regular file is read: packed, through something; compression: its name."""

    compression: str
    is_transcript: bool
    text: TextFormat

    @property
    def needs_extraction(self) -> bool:
        """Whether what is read is not what lies in the file."""
        return bool(self.compression) or self.is_transcript


def inspect(path: Path) -> FileType:
    """What the file is.

    Raises OSError if it may not be read, ArchiveError if it is damaged from the start.
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
    """What a regular file says, in UTF-8 if it is a transcript, else as it is encoded. Raises
    ArchiveError at the place from which on it cannot be read."""
    found = inspect(path)
    with path.open("rb") as file:
        read = file.read
        content = decompress(found.compression, read) if found.compression else _blocks(read)
        yield from read_records(content) if found.is_transcript else content


def pipe_content(path: Path, follow: bool = False) -> AsyncIterator[bytes]:
    """What comes through standard input, a pipe or a device; unpacked, if it is packed. follow:
    also from those who write to the pipe later."""
    return _from_thread(lambda: _read_pipe(path, follow))


async def in_thread(content: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The same, without the event loop waiting for the disk."""
    while (data := await asyncio.to_thread(next, content, None)) is not None:
        yield data


def _read_pipe(path: Path, follow: bool) -> Iterator[bytes]:
    standard = str(path) == STANDARD_INPUT
    file = os.dup(0) if standard else os.open(path, os.O_RDONLY)
    try:
        head = os.read(file, READ_BYTES)
        packed = detect_compression(head)
        if not packed:
            if head:
                yield head
            yield from _blocks(lambda size: os.read(file, size))
            while follow:
                time.sleep(_LOOK_SECONDS)
                yield from _blocks(lambda size: os.read(file, size))
            return
        heads = [head]
        yield from decompress(packed, lambda size: heads.pop() if heads else os.read(file, size))
    finally:
        os.close(file)


def _blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while data := read(READ_BYTES):
        yield data


async def _from_thread(made: Callable[[], Iterator[Any]]) -> AsyncIterator[Any]:
    """What the iterator gives, which may never come: its thread ends with the process, so that
    one interrupt is enough."""
    loop, room = asyncio.get_running_loop(), queue.Queue[None](2)
    arrived: asyncio.Queue[tuple[Any, BaseException | None, bool]] = asyncio.Queue()

    def give(value: Any, error: BaseException | None = None, last: bool = False) -> None:
        try:
            loop.call_soon_threadsafe(arrived.put_nowait, (value, error, last))
        except RuntimeError:  # the loop is closed: nobody listens any more
            raise SystemExit from None

    def run() -> None:
        try:
            for value in made():
                room.put(None)
                give(value)
            give(None, last=True)
        except Exception as error:
            give(None, error, True)

    threading.Thread(target=run, name="xl3m-feed-pipe", daemon=True).start()
    while True:
        value, error, last = await arrived.get()
        if error:
            raise error
        if last:
            return
        room.get_nowait()
        yield value
