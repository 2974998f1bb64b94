"""Compressed files: what they hold, a bounded piece at a time, member after member.

gzip, bzip2, xz and zstd. A damaged or truncated archive gives all that can be read of it before
the error. Knows bytes; no file's name and no character.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import zstandard

from stream_app.feeding.file_types import detect_compression

PIECE_BYTES = 65_536
_READ_BYTES = 16_384
# zstd has no bound on what one call gives; of so little it gives 16 MB at most.
_ZSTD_READ_BYTES = 512
_ERRORS = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError, ValueError)


class ArchiveError(ValueError):
    """The archive cannot be read any further; the message says why."""


class _Decoder(Protocol):
    eof: bool
    unused_data: bytes
    needs_input: bool

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """zlib's object, with the attributes that those of bz2 and lzma have."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most so many bytes."""
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        """Whether the member is at its end."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """What stands behind its end."""
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing left of what was given."""
        return not self._inner.unconsumed_tail and not self._inner.eof


class _Zstd:
    needs_input = True

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor().decompressobj()

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """All that there is: the caller gives little."""
        return self._inner.decompress(data)

    @property
    def eof(self) -> bool:
        """Whether the frame is at its end."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """What stands behind its end."""
        return self._inner.unused_data


_DECODERS: dict[str, Callable[[], Any]] = {
    "gzip": _Zlib,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
    "zstd": _Zstd,
}


def decompress(kind: str, read: Callable[[int], bytes]) -> Iterator[bytes]:
    """What the archive holds. read: as of a file. Raises ArchiveError when it is damaged, cut
    short, or followed by something else; all before that was given."""
    source, given = _PushbackReader(read, _ZSTD_READ_BYTES if kind == "zstd" else _READ_BYTES), 0
    while source.has_next_member(kind, given):
        for piece in _member(_DECODERS[kind](), source, given):
            given += len(piece)
            yield piece


def _member(decoder: _Decoder, source: "_PushbackReader", given: int) -> Iterator[bytes]:
    while not decoder.eof:
        data = source.read() if decoder.needs_input else b""
        if decoder.needs_input and not data:
            raise ArchiveError(f"it is cut short: its end is missing after {given} bytes of text")
        try:
            piece = decoder.decompress(data, PIECE_BYTES)
        except _ERRORS as error:
            raise ArchiveError(f"it is damaged after {given} bytes of text ({error})") from error
        given += len(piece)
        if piece:
            yield piece
    source.unread(decoder.unused_data)


class _PushbackReader:
    """The compressed bytes, of which some may be given back."""

    def __init__(self, read: Callable[[int], bytes], size: int) -> None:
        self._read = read
        self._size = size
        self._kept = b""

    def read(self) -> bytes:
        """A few more; none at the end."""
        if not self._kept:
            return self._read(self._size)
        taken, self._kept = self._kept[: self._size], self._kept[self._size :]
        return taken

    def unread(self, data: bytes) -> None:
        """They come first the next time."""
        self._kept = data + self._kept

    def has_next_member(self, kind: str, given: int) -> bool:
        """Whether one more member follows; zero bytes are padding. Raises ArchiveError when
        what follows is none."""
        while not self._kept.lstrip(b"\0"):
            self._kept = self._read(self._size)
            if not self._kept:
                return False
        self._kept = self._kept.lstrip(b"\0")
        while len(self._kept) < 16 and (more := self._read(self._size)):
            self._kept += more
        if detect_compression(self._kept) != kind:
            raise ArchiveError(f"what stands behind its end is no {kind}, and was left out")
        return True
