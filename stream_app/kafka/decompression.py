"""Decompression of record batches with a size limit, for the four codecs of Kafka.

A broker limits compressed bytes, and a megabyte of them can decompress to gigabytes.
"""

import importlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
NAMES = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}

_NEEDS = {SNAPPY: "cramjam", LZ4: "cramjam", ZSTD: "zstandard"}
_PIECE = 1 << 20
_GZIP_PIECE = 1 << 14  # zlib copies the bytes after each member, and there may be many members
_ZSTD_WINDOW = 1 << 27  # zstd's own default

_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER = 16

_LZ4_MAGIC = 0x184D2204
_LZ4_BLOCK_BYTES = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}


class DecompressionError(ValueError):
    """Data that is damaged or exceeds the limit; the message is the reason."""


class TooLargeError(DecompressionError):
    """Data that exceeds the limit."""


def missing_codecs() -> list[str]:
    """Codecs of Kafka whose package is not installed; normally none."""
    return [NAMES[codec] for codec, package in _NEEDS.items() if not _has(package)]


def decompress(codec: int, data: Buffer, most: int) -> Buffer:
    """The decompressed data. Raises DecompressionError if it is damaged or over `most` bytes."""
    if codec not in _DECOMPRESS:
        raise DecompressionError(f"unknown compression codec {codec}")
    try:
        return _DECOMPRESS[codec](memoryview(data), most)
    except DecompressionError:
        raise
    except Exception as error:  # each library has its own errors
        reason = str(error) or type(error).__name__
        raise DecompressionError(
            f"{NAMES[codec]} data cannot be decompressed ({reason})"
        ) from error


def _has(package: str) -> bool:
    try:
        return importlib.import_module(package) is not None
    except ImportError:
        return False


def _check(size: int, most: int) -> None:
    if size > most:
        raise TooLargeError(f"decompressed, the batch has more than {most} bytes")


def _gzip(data: memoryview, most: int) -> Buffer:
    """All members of a gzip file."""
    found, left, at = list[bytes](), most, 0
    while at < len(data):
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if not (piece := data[at : at + _GZIP_PIECE]):
                raise DecompressionError("gzip data ends too early")
            found.append(member.decompress(piece, left + 1))
            _check(len(found[-1]), left)
            left -= len(found[-1])
            at += len(piece) - len(member.unused_data)
    return b"".join(found)


def _snappy(data: memoryview, most: int) -> Buffer:
    """One block, or blocks in the frame of Java's library; each begins with its size."""
    import cramjam

    blocks = [*_xerial(data)] if bytes(data[: len(_XERIAL)]) == _XERIAL else [data]
    _check(sum(map(_snappy_size, blocks)), most)
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)


def _xerial(data: memoryview) -> Iterator[memoryview]:
    at = _XERIAL_HEADER
    while at < len(data):
        [size] = struct.unpack_from(">i", data, at)
        block = data[at + 4 : at + 4 + size]
        if size < 0 or len(block) != size:
            raise DecompressionError("snappy data ends too early")
        yield block
        at += 4 + size


def _snappy_size(block: memoryview) -> int:
    """The size at the start of a block: a varint of at most 32 bits."""
    size = 0
    for shift, byte in zip(range(0, 35, 7), block, strict=False):
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size
    raise DecompressionError("snappy data does not say its size")


def _lz4(data: memoryview, most: int) -> Buffer:
    """A frame. It has the maximum size of its blocks, but not their sizes."""
    import cramjam

    max_size = _lz4_size(data)
    buffer = bytearray(min(max_size, most + 1))
    try:
        size = cramjam.lz4.decompress_into(data, buffer)
    except Exception:
        _check(max_size, most)  # too large, or damaged
        raise
    _check(size, most)
    return memoryview(buffer)[:size]


def _lz4_size(data: memoryview) -> int:
    """The largest possible size of a frame, by its blocks."""
    magic, flags, block_flags = struct.unpack_from("<IBB", data)
    largest = _LZ4_BLOCK_BYTES.get(block_flags >> 4 & 7)
    if magic != _LZ4_MAGIC or largest is None:
        raise DecompressionError("lz4 data has no frame")
    at = 7 + 8 * bool(flags & 8) + 4 * bool(flags & 1)
    held = 0
    while word := struct.unpack_from("<I", data, at)[0]:
        size = word & 0x7FFFFFFF
        held += size if word >> 31 else largest
        at += 4 + size + 4 * bool(flags & 16)
    return held


def _zstd(data: memoryview, most: int) -> Buffer:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    size = zstandard.frame_content_size(data)
    _check(size, most)
    found, left = list[bytes](), most + 1
    with decompressor.stream_reader(data, read_across_frames=True) as reader:
        while left and (piece := reader.read(min(left, max(size + 1, _PIECE)))):
            found.append(piece)
            left -= len(piece)
    _check(most + 1 - left, most)
    if 0 <= size != most + 1 - left and len(found) < 2:
        raise DecompressionError("zstd data ends too early")
    return found[0] if len(found) == 1 else b"".join(found)


_DECOMPRESS: dict[int, Callable[[memoryview, int], Buffer]] = {
    GZIP: _gzip,
    SNAPPY: _snappy,
    LZ4: _lz4,
    ZSTD: _zstd,
}
