"""Transcripts: WebVTT, SubRip and JSON transcripts as records `00:12:31 Anna: text`.

Detected by content. A malformed transcript keeps its text.
"""

import json
import re
from collections.abc import Iterable, Iterator

from stream_app.feeding.file_types import detect_text
from stream_app.feeding.subtitles import (
    Cue,
    merge_cues,
    parse_json,
    parse_subrip,
    parse_webvtt,
    split_blocks,
)

# A transcript is read whole (a day of talk is 1 MB). A larger file is passed on unchanged.
MAX_BYTES = 64 << 20
_SUBRIP = re.compile(r"\s*(?:\d+\s*\n\s*)?\d+:\d+:\d+[,.]\d+ *--> *\d+:\d+:\d+[,.]\d+")
_JSON = re.compile(
    r'"(?:segments|entries|transcription|transcript|speakerDisplayName|startOffset|speaker)"\s*:'
    r'|^\s*\{\s*"text"\s*:|^\s*\[\s*\{\s*"(?:id|start|text|ts|user_name|username|begin)"\s*:'
)


def is_transcript(head: bytes, content: Iterable[bytes] = ()) -> bool:
    """Whether a file is a transcript, by its first bytes.

    JSON is parsed as a whole, unless its first line shows that it is JSON lines. content: the whole
    file, including the head.
    """
    text = _text(head)
    if text is None:
        return False
    if re.match(r"WEBVTT(?:[ \t\r\n]|$)", text) or _SUBRIP.match(text):
        return True
    if text.lstrip()[:1] not in ("{", "[") or not _JSON.search(text) or _is_lines(text):
        return False
    whole = _whole(iter(content))
    return whole is not None and _cues(whole) is not None


def _is_lines(text: str) -> bool:
    """Whether it is JSON lines: the first line is valid JSON and others follow."""
    first, _, rest = text.lstrip().partition("\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(rest.strip())


def _whole(content: Iterator[bytes]) -> bytes | None:
    """The whole content; None if it is too large."""
    parts, size = list[bytes](), 0
    for data in content:
        parts.append(data)
        size += len(data)
        if size > MAX_BYTES:
            return None
    return b"".join(parts)


def read_records(content: Iterable[bytes]) -> Iterator[bytes]:
    """The records of a transcript, in UTF-8; other content is yielded unchanged."""
    parts, size = list[bytes](), 0
    content = iter(content)
    for data in content:
        parts.append(data)
        size += len(data)
        if size > MAX_BYTES:
            yield from parts
            yield from content
            return
    whole = b"".join(parts)
    cues = _cues(whole)
    if cues is None:
        yield whole
        return
    for record in merge_cues(cues):
        yield record.encode("utf-8", "replace")


def _cues(whole: bytes) -> Iterator[Cue] | None:
    text = _text(whole)
    if text is None:
        return None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.startswith("WEBVTT"):
        return parse_webvtt(split_blocks(text))
    if _SUBRIP.match(text):
        return parse_subrip(text)
    try:
        return parse_json(json.loads(text))
    except (ValueError, RecursionError):
        return None  # usually JSON lines


def _text(data: bytes) -> str | None:
    kind = detect_text(data[:1024])
    if kind.refusal:
        return None
    return data[kind.bom_bytes :].decode(kind.encoding, "replace")
