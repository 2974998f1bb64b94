"""Encoder: turns chunks of a file into events of the tokens topic, in the configured input format.

Text is sent in chunks of many lines, JSON as one object per event, unchanged. Lines that are not
valid text are handled by XL3M_ENCODING.
"""

import codecs
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from stream_app.events import encode
from stream_app.feeding.chunking import Chunk
from stream_app.formats.lines import line_rule, line_time
from stream_app.settings import Settings
from xl3m_core.records import record_start

# Kafka limits a batch: its key, headers and framing take up to this much.
_FRAME_BYTES = 1024
_PLAIN_NAME = re.compile(r"[\w@-]+(\.[\w@-]+)*")
_BLANKS = b"\0 \t\r\n"  # NUL: the other half of each in UTF-16
_BOMS = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}


class EncodedEvent(NamedTuple):
    """A value for Kafka, and the chunk that it holds."""

    value: bytes
    chunk: Chunk


@dataclass(slots=True)
class FeedCounts:
    """What became of a stream's lines. undecodable_at: the first byte offset that is not text."""

    records: int = 0
    bytes: int = 0
    events: int = 0
    undecodable: int = 0
    undecodable_at: int = -1
    replaced: int = 0
    left_out: int = 0
    not_json: int = 0
    notes: list[str] = field(default_factory=list)


class EventEncoder:
    """Encodes chunks. field: the JSON field for a line that is not JSON; is_raw: such a line is
    sent as it is."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.kind = "lines" if settings.form == "cri" else settings.form
        self.rule = line_rule(settings.time_from_line) if self.kind == "lines" else None
        limit = settings.max_event_bytes
        self.max_bytes = limit - _FRAME_BYTES if limit > 8 * _FRAME_BYTES else limit
        self.field = _text_field(settings)
        self.is_raw = self.kind == "json" and not self.field
        self.starts = record_start(settings.record_start)

    def encode(self, stream: str, chunk: Chunk, counts: FeedCounts) -> Iterator[EncodedEvent]:
        """The chunk as events, none larger than XL3M_MAX_EVENT_BYTES; updates the counts."""
        counts.bytes += len(chunk.raw)
        counts.records += chunk.raw.count(b"\n") or 1
        if chunk.is_text():
            yield from self._encode_text(stream, chunk, counts)
            return
        for part in self._split_invalid(chunk, counts):
            if self.settings.encoding == "strict" and not part.is_text():
                yield from self._encode_raw(part, counts)
            else:
                yield from self._encode_text(stream, part, counts)

    def time_ms(self, chunk: Chunk) -> int | None:
        """The time in the chunk's first line, in ms; None if times are not read from lines."""
        if self.rule is None:
            return None
        first = next(chunk.lines()).text()
        return line_time(first, self.rule, round(time.time() * 1000))

    def _encode_text(self, stream: str, chunk: Chunk, counts: FeedCounts) -> Iterator[EncodedEvent]:
        encode_text = self._encode_json if self.kind == "json" else self._split_to_fit
        return encode_text(stream, chunk, counts)

    def _split_invalid(self, chunk: Chunk, counts: FeedCounts) -> Iterator[Chunk]:
        """Under `strict`, separate the lines that are not text from the others."""
        start, at = 0, 0
        for line in chunk.lines():
            at += len(line.raw)
            if line.is_text():
                continue
            if counts.undecodable_at < 0:
                counts.undecodable_at = line.start
            if self.settings.encoding == "replace":
                counts.replaced += 1
                continue
            if start < line.start - chunk.start:
                yield chunk.slice(start, line.start - chunk.start)
            yield line
            start = at
        if start < len(chunk.raw):
            yield chunk.slice(start, len(chunk.raw))

    def _encode_raw(self, line: Chunk, counts: FeedCounts) -> Iterator[EncodedEvent]:
        """A line that is not text, as its bytes, for the worker to decide; msgpack cannot carry it.

        A byte order mark keeps UTF-16 from being read as UTF-8.
        """
        if self.kind == "msgpack":
            counts.left_out += 1
            return
        counts.undecodable += 1
        counts.events += 1
        yield EncodedEvent((_BOMS.get(line.encoding, b"") + line.raw)[: self.max_bytes], line)

    def _encode_json(self, stream: str, chunk: Chunk, counts: FeedCounts) -> Iterator[EncodedEvent]:
        """Objects and arrays unchanged, one per event; other records as a field of an object."""
        start = at = 0  # of the record that is not JSON
        for line in chunk.lines():
            text = line.to_utf8()
            if self._continues(chunk.raw[start:at], line):
                pass
            elif len(text) <= self.max_bytes and _is_json(text):
                yield from self._wrapped(stream, chunk.slice(start, at), counts)
                counts.events += 1
                yield EncodedEvent(text.strip(), line)
                start = at + len(line.raw)
            elif chunk.raw[start:at].strip(_BLANKS) and self.starts(line.text()):
                yield from self._wrapped(stream, chunk.slice(start, at), counts)
                start = at
            at += len(line.raw)
        yield from self._wrapped(stream, chunk.slice(start, at), counts, alone=start == 0)

    def _continues(self, record: bytes, line: Chunk) -> bool:
        """Whether the line continues a document of several lines that is sent unchanged."""
        is_open = self.is_raw and record.lstrip(_BLANKS)[:1] in (b"{", b"[")
        return is_open and not self.starts(line.text())

    def _wrapped(
        self, stream: str, record: Chunk, counts: FeedCounts, alone: bool = False
    ) -> Iterator[EncodedEvent]:
        """The record as events; alone: it is the whole chunk, so blank lines are sent, too."""
        if record.raw.strip(_BLANKS) or (alone and self.field):
            counts.not_json += 1
            yield from self._split_to_fit(stream, record, counts)

    def _split_to_fit(
        self, stream: str, chunk: Chunk, counts: FeedCounts
    ) -> Iterator[EncodedEvent]:
        value = self._serialize(stream, chunk)
        halves = chunk.halve() if len(value) > self.max_bytes else ()
        if len(halves) < 2:
            counts.events += 1
            yield EncodedEvent(value, chunk)
            return
        for half in halves:
            yield from self._split_to_fit(stream, half, counts)

    def _serialize(self, stream: str, chunk: Chunk) -> bytes:
        if self.kind == "lines":
            whole = chunk.encoding == "utf-8" and self.settings.encoding == "strict"
            return chunk.raw if whole else chunk.text().encode()
        if self.kind == "msgpack":
            return encode({"text": chunk.text()}, as_json=False)
        if not self.field:
            text = chunk.text()
            return (text.strip(" \t\r\n") or text).encode()  # an empty value is a deletion
        key = self.settings.key_field
        named = {key: stream} if key and ":" not in key else {}
        return encode({self.field: chunk.text()} | named, as_json=True)


def _is_json(line: bytes) -> bool:
    """Whether the line is a JSON object or array."""
    ends = line.strip()
    if (ends[:1], ends[-1:]) not in ((b"{", b"}"), (b"[", b"]")):
        return False
    try:
        json.loads(ends)
    except (ValueError, RecursionError):
        return False
    return True


def _text_field(settings: Settings) -> str:
    """The JSON field for a line that is not JSON.

    Empty if the settings take the text from elsewhere: then the worker reads the line itself, or
    says what is wrong with it.
    """
    has_preset = settings.input_format != settings.form
    if has_preset or settings.text or settings.records_field:
        return ""
    name = settings.text_field or "text"
    return name if _PLAIN_NAME.fullmatch(name) else ""
