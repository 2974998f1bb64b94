"""Compression: decompresses gzip, bzip2, xz and zstd in bounded pieces, member after member.

A damaged or truncated archive yields all that can be read before it raises.
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
# zstd cannot bound the output of one call; this input yields 16 MB at most.
_ZSTD_READ_BYTES = 512
_ERRORS = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError, ValueError)


class ArchiveError(ValueError):
    """The archive cannot be read further; the message says why."""


class _Decoder(Protocol):
    eof: bool
    unused_data: bytes
    needs_input: bool

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """A zlib decompressor with the attributes of those in bz2 and lzma."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes."""
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """The bytes behind its end."""
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        """Whether all input was used."""
        return not self._inner.unconsumed_tail and not self._inner.eof


class _Zstd:
    needs_input = True

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor().decompressobj()

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """All output: the caller passes little input."""
        return self._inner.decompress(data)

    @property
    def eof(self) -> bool:
        """Whether the frame has ended."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """The bytes behind its end."""
        return self._inner.unused_data


_DECODERS: dict[str, Callable[[], Any]] = {
    "gzip": _Zlib,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
    "zstd": _Zstd,
}


def decompress(kind: str, read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The archive's content, in pieces of at most 64 KB (zstd: 16 MB). read: as of a file.

    Raises ArchiveError if it is damaged, truncated, or followed by other data; the content before
    that was yielded.
    """
    source, produced = _PushbackReader(read, _ZSTD_READ_BYTES if kind == "zstd" else _READ_BYTES), 0
    while source.has_next_member(kind, produced):
        for piece in _member(_DECODERS[kind](), source, produced):
            produced += len(piece)
            yield piece


def _member(decoder: _Decoder, source: "_PushbackReader", produced: int) -> Iterator[bytes]:
    while not decoder.eof:
        data = source.read() if decoder.needs_input else b""
        if decoder.needs_input and not data:
            raise ArchiveError(f"it is truncated after {produced} bytes of text")
        try:
            piece = decoder.decompress(data, PIECE_BYTES)
        except _ERRORS as error:
            raise ArchiveError(f"it is damaged after {produced} bytes of text ({error})") from error
        produced += len(piece)
        if piece:
            yield piece
    source.unread(decoder.unused_data)


class _PushbackReader:
    """Reads compressed bytes, which can be pushed back."""

    def __init__(self, read: Callable[[int], bytes], size: int) -> None:
        self._read = read
        self._size = size
        self._pushed_back = b""

    def read(self) -> bytes:
        """The next bytes; empty at the end."""
        if not self._pushed_back:
            return self._read(self._size)
        data, self._pushed_back = self._pushed_back[: self._size], self._pushed_back[self._size :]
        return data

    def unread(self, data: bytes) -> None:
        """Push the data back; it is read next."""
        self._pushed_back = data + self._pushed_back

    def has_next_member(self, kind: str, produced: int) -> bool:
        """Whether another member follows; zero bytes are padding. Raises ArchiveError if other data
        follows."""
        while not self._pushed_back.lstrip(b"\0"):
            self._pushed_back = self._read(self._size)
            if not self._pushed_back:
                return False
        self._pushed_back = self._pushed_back.lstrip(b"\0")
        while len(self._pushed_back) < 16 and (more := self._read(self._size)):
            self._pushed_back += more
        if detect_compression(self._pushed_back) != kind:
            raise ArchiveError(f"the data behind its end is not {kind}, and was skipped")
        return True
