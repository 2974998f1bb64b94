"""Reader: a source, by whatever way it is read, in pieces and in order.

Knows the ways; no Kafka.
"""

from collections.abc import AsyncIterator
from pathlib import Path

from stream_app.feeding.following import Following
from stream_app.feeding.once import is_packed, read_packed, read_piped
from stream_app.feeding.pieces import Piece
from stream_app.feeding.source import How, Source, is_piped


async def read(source: Source, how: How) -> AsyncIterator[Piece]:
    """The pieces of a source, in order."""
    async for piece in _way(source, how):
        yield piece


def _way(source: Source, how: How) -> AsyncIterator[Piece]:
    if is_piped(source.path):
        return read_piped(source, how)
    if is_packed(source.path):
        if source.follow:
            how.say(f"{source.path} is packed: it is read once, and not followed")
        return read_packed(source, how)
    return Following(source, how).pieces()


async def read_file(path: Path, follow: bool = False) -> AsyncIterator[str]:
    """A file's text in chunks of whole records; `-` is standard input. What is not text is
    U+FFFD. follow: and what is written to it later, for ever."""
    async for piece in read(Source(path, path.name, follow), How()):
        yield piece.text()
