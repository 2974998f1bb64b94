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


async def read(source: Source, options: ReadOptions) -> AsyncIterator[Chunk]:
    """The chunks of a source, in order."""
    async for chunk in _open_source(source, options):
        yield chunk


def _open_source(source: Source, options: ReadOptions) -> AsyncIterator[Chunk]:
    if is_piped(source.path):
        return _read_pipe(source, options)
    if needs_extraction(source.path):
        if source.follow:
            options.notify(
                f"{source.path} is an archive or a transcript: it is read once and not followed"
            )
        return _read_archive(source, options)
    return Tailer(source, options).chunks()


def needs_extraction(path: Path) -> bool:
    """Whether the file is compressed or a transcript, so that its text must be extracted."""
    try:
        return inspect(path).needs_extraction
    except FileNotFoundError:
        return False
    except ArchiveError:
        return True


async def _read_pipe(source: Source, options: ReadOptions) -> AsyncIterator[Chunk]:
    """The content of a pipe, as it arrives."""
    follow = source.follow and str(source.path) != STANDARD_INPUT
    async for chunk in _split(source, options, pipe_content(source.path, follow), None):
        yield chunk


async def _read_archive(source: Source, options: ReadOptions) -> AsyncIterator[Chunk]:
    """An archive or a transcript; a restart skips what was sent of it."""
    with source.path.open("rb") as file:
        entry = _archive_checkpoint(source, options.checkpoints, file.fileno())
    if entry is None:
        return
    end = 0
    async for chunk in _split(source, options, in_thread(extract(source.path)), entry):
        end = chunk.end
        if chunk.end > entry.sent:
            yield chunk.slice(max(0, entry.sent - chunk.start), len(chunk.raw))
    options.checkpoints.finish(entry, end)


def _archive_checkpoint(source: Source, checkpoints: Checkpoints, file: int) -> Checkpoint | None:
    """The checkpoint of the open file; None if all of it was sent."""
    for entry in checkpoints.entries.values():
        if entry.archive and entry.stream == source.stream and entry.matches(file):
            checkpoints.resume(entry, file)
            return None if entry.done else entry
    return checkpoints.add(source.path, source.stream, file, 0, archive=True)


async def _split(
    source: Source, options: ReadOptions, content: AsyncIterator[bytes], entry: Checkpoint | None
) -> AsyncIterator[Chunk]:
    """The chunks of the content, or of its last lines."""
    chunks = _chunks_of(source, options, content, entry)
    if options.last_lines is None:
        async for chunk in chunks:
            yield chunk
        return
    lines = deque[Chunk](maxlen=options.last_lines)
    async for chunk in chunks:
        lines.extend(chunk.lines())
    for line in lines:
        yield line


async def _chunks_of(
    source: Source, options: ReadOptions, content: AsyncIterator[bytes], entry: Checkpoint | None
) -> AsyncIterator[Chunk]:
    """The chunks; a damaged archive is reported, and its readable part is used."""
    splitter: Splitter | None = None
    try:
        async for data in content:
            if splitter is None:
                text = detect_text(data)
                splitter = Splitter(text.bom_bytes, text.encoding, entry, options.rules)
                data = data[text.bom_bytes :]
            for chunk in splitter.push(data, more=entry is not None):
                yield chunk
    except ArchiveError as error:
        options.report_error(f"{source.path}: {error}; what could be read before that is sent")
    for chunk in splitter.flush() if splitter else ():
        yield chunk
