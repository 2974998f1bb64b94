"""Dialogue: WebVTT, SubRip and JSON of meetings and recognisers as records of one utterance.

A record says when and who: `00:12:31 Anna: what she said`. Recognised by what they hold; what is
malformed keeps its text. Knows bytes and cues; no stream.
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

# A transcript is read whole: a day of talk has one megabyte. What is larger goes as it is.
LARGEST = 64 << 20
_SUBRIP = re.compile(r"\s*(?:\d+\s*\n\s*)?\d+:\d+:\d+[,.]\d+ *--> *\d+:\d+:\d+[,.]\d+")
_JSON = re.compile(
    r'"(?:segments|entries|transcription|transcript|speakerDisplayName|startOffset|speaker)"\s*:'
    r'|^\s*\{\s*"text"\s*:|^\s*\[\s*\{\s*"(?:id|start|text|ts|user_name|username|begin)"\s*:'
)


def is_transcript(head: bytes, content: Iterable[bytes] = ()) -> bool:
    """Whether a file that begins so is one. JSON is looked at as a whole, unless its first line
    says that it is lines of JSON. content: all of it, with the head."""
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
    """Whether the first line is a document, and others follow."""
    first, _, others = text.lstrip().partition("\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(others.strip())


def _whole(content: Iterator[bytes]) -> bytes | None:
    """All of it; None if that is too much."""
    held, size = list[bytes](), 0
    for data in content:
        held.append(data)
        size += len(data)
        if size > LARGEST:
            return None
    return b"".join(held)


def read_records(content: Iterable[bytes]) -> Iterator[bytes]:
    """The records of what may be a transcript, in UTF-8; the content as it is, if it is none."""
    held, size = list[bytes](), 0
    content = iter(content)
    for data in content:
        held.append(data)
        size += len(data)
        if size > LARGEST:
            yield from held
            yield from content
            return
    whole = b"".join(held)
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
        return None  # lines of JSON, as a rule


def _text(data: bytes) -> str | None:
    kind = detect_text(data[:1024])
    if kind.refusal:
        return None
    return data[kind.bom_bytes :].decode(kind.encoding, "replace")
