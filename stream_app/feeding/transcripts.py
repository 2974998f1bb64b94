"""Transcripts: a file of what was said, as records `00:12:31 Anna: what she said`.

For whoever reads a transcript without feeding it. Knows paths; the formats are those of `cues`.
"""

from collections.abc import Iterator
from pathlib import Path

from stream_app.feeding.contents import kind, unpacked


def is_transcript(path: Path) -> bool:
    """Whether the file is one, also if it is compressed. Raises OSError, ArchiveError."""
    return path.is_file() and kind(path).is_transcript


def records(path: Path) -> Iterator[str]:
    """The records of a transcript, each with its line end. Raises OSError, ArchiveError."""
    if is_transcript(path):
        yield from (data.decode() for data in unpacked(path))
