"""Reader: a source's content in chunks, in order, whatever kind of file it is.

`read` follows plain files (`tailer`) and reads pipes, archives and transcripts once, to the end.
"""

from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from stream_app.feeding.checkpoints import Checkpoint, Checkpoints
from stream_app.feeding.chunking import Chunk, Splitter
from stream_app.feeding.compression import ArchiveError
from stream_app.feeding.content import STANDARD_INPUT, extract, in_thread, inspect, pipe_content
from stream_app.feeding.file_types import detect_text
from stream_app.feeding.source import ReadOptions, Source, is_piped
from stream_app.feeding.tailer import Tailer


async def read(source: Source, how: ReadOptions) -> AsyncIterator[Chunk]:
    """The pieces of a source, in order."""
    async for piece in _way(source, how):
        yield piece


def _way(source: Source, how: ReadOptions) -> AsyncIterator[Chunk]:
    if is_piped(source.path):
        return read_piped(source, how)
    if is_packed(source.path):
        if source.follow:
            how.notify(f"{source.path} is packed: it is read once, and not followed")
        return read_packed(source, how)
    return Tailer(source, how).chunks()


def is_packed(path: Path) -> bool:
    """Whether what it says is not what lies in the file."""
    try:
        return inspect(path).needs_extraction
    except FileNotFoundError:
        return False
    except ArchiveError:
        return True


async def read_piped(source: Source, how: ReadOptions) -> AsyncIterator[Chunk]:
    """What comes through a pipe, as it comes."""
    follow = source.follow and str(source.path) != STANDARD_INPUT
    async for piece in _split(source, how, pipe_content(source.path, follow), None):
        yield piece


async def read_packed(source: Source, how: ReadOptions) -> AsyncIterator[Chunk]:
    """An archive or a transcript; a restart leaves out what was sent of it."""
    with source.path.open("rb") as file:
        entry = _archive_entry(source, how.checkpoints, file.fileno())
    if entry is None:
        return
    end = 0
    async for piece in _split(source, how, in_thread(extract(source.path)), entry):
        end = piece.end
        if piece.end > entry.sent:
            yield piece.slice(max(0, entry.sent - piece.start), len(piece.raw))
    how.checkpoints.finish(entry, end)


def _archive_entry(source: Source, book: Checkpoints, file: int) -> Checkpoint | None:
    """The entry of the open file; None if all of it was sent."""
    for entry in book.entries.values():
        if entry.archive and entry.stream == source.stream and entry.matches(file):
            book.resume(entry, file)
            return None if entry.done else entry
    return book.add(source.path, source.stream, file, 0, archive=True)


async def _split(
    source: Source, how: ReadOptions, content: AsyncIterator[bytes], entry: Checkpoint | None
) -> AsyncIterator[Chunk]:
    """The pieces of a stream of bytes, or of its last lines; what goes wrong is said at the end."""
    pieces = _pieces_of(source, how, content, entry)
    if how.last_lines is None:
        async for piece in pieces:
            yield piece
        return
    lines = deque[Chunk](maxlen=how.last_lines)
    async for piece in pieces:
        lines.extend(piece.lines())
    for line in lines:
        yield line


async def _pieces_of(
    source: Source, how: ReadOptions, content: AsyncIterator[bytes], entry: Checkpoint | None
) -> AsyncIterator[Chunk]:
    splitter: Splitter | None = None
    try:
        async for data in content:
            if splitter is None:
                text = detect_text(data)
                splitter = Splitter(text.bom_bytes, text.encoding, entry, how.rules)
                data = data[text.bom_bytes :]
            for piece in splitter.push(data, more=entry is not None):
                yield piece
    except ArchiveError as error:
        how.report_error(f"{source.path}: {error}; what could be read is sent")
    for piece in splitter.flush() if splitter else ():
        yield piece
