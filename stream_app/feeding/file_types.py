"""File types: detects compression, character encoding and binary files by the first bytes."""

import codecs
from dataclasses import dataclass

HEAD_BYTES = 16_384

_COMPRESSIONS = {
    "gzip": b"\x1f\x8b\x08",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\0",
    "zstd": b"\x28\xb5\x2f\xfd",
}
SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zstd", ".gzip")

_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BINARY = {
    b"PK\x03\x04": "a zip archive",
    b"%PDF-": "a PDF",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x7fELF": "a program",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!\x1a": "a rar archive",
    b"\x04\x22\x4d\x18": "compressed with lz4, which is not read: decompress it first",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "an SQLite database",
    b"\xff\xfe\0\0": "UTF-32, which is not read: convert it with `iconv`",
    b"\0\0\xfe\xff": "UTF-32, which is not read: convert it with `iconv`",
}


@dataclass(frozen=True, slots=True)
class TextFormat:
    """encoding and bom_bytes (size of the byte order mark) of text; refusal: why it is not text."""

    encoding: str = "utf-8"
    bom_bytes: int = 0
    refusal: str = ""


def detect_compression(head: bytes) -> str:
    """The name of the compression; empty if there is none."""
    if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return "zstd"  # a skippable frame, which pzstd writes first
    for name, magic in _COMPRESSIONS.items():
        if head.startswith(magic) and (name != "bzip2" or _is_bzip2(head)):
            return name
    return ""


def _is_bzip2(head: bytes) -> bool:
    """Text may begin with BZh, too; in bzip2 a block header or the end marker follows."""
    return head[4:10] in (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")


def detect_text(head: bytes) -> TextFormat:
    """Detect the encoding of uncompressed data that begins with these bytes."""
    for magic, what in _BINARY.items():
        if head.startswith(magic):
            return TextFormat(refusal=what)
    if head[257:262] == b"ustar":
        return TextFormat(refusal="a tar archive: unpack it first")
    for bom, encoding in _ENCODINGS:
        if head.startswith(bom):
            return TextFormat(encoding, len(bom))
    if b"\0" in head:
        wide = len(head) > 3 and 0 in (head[0], head[1]) and head[:2] != b"\0\0"
        hint = ": UTF-16 without a byte order mark? Convert it with `iconv`" if wide else ""
        return TextFormat(refusal=f"not text (it has NUL bytes){hint}")
    return TextFormat()


def is_partial_bom(head: bytes) -> bool:
    """Whether the bytes are the incomplete beginning of a byte order mark."""
    return bool(head) and any(bom.startswith(head) and bom != head for bom, _ in _ENCODINGS)


def strip_suffix(name: str) -> str:
    """A file's name without the suffix of its compression: `old.log.gz` -> `old.log`."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name
