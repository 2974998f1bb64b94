"""Reading files as `xl3m feed` reads them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from stream_app.feeding.content import extract, inspect
from stream_app.feeding.reader import read
from stream_app.feeding.source import ReadOptions, Source


async def read_file(path: Path, follow: bool = False) -> AsyncIterator[str]:
    """A file's text in chunks of whole records; `-` is standard input.

    Bytes that are not text are U+FFFD. follow: also what is written later, for ever.
    """
    async for piece in read(Source(path, path.name, follow), ReadOptions()):
        yield piece.text()


def is_transcript(path: Path) -> bool:
    """Whether the file is a transcript, also if it is compressed."""
    return path.is_file() and inspect(path).is_transcript


def transcript_records(path: Path) -> Iterator[str]:
    """The records of a transcript, each with its line end."""
    if is_transcript(path):
        yield from (data.decode() for data in extract(path))
