"""Forms: pieces of a file as events of the tokens topic, in the form the settings ask for.

Text goes in chunks of many lines, JSON one object an event, as it is. One rule for what is not
text. Knows the wire format; sends nothing.
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

# Kafka's own limit is of a batch: key, header and what frames them take this much at most.
_FRAME_BYTES = 1024
_PLAIN_NAME = re.compile(r"[\w@-]+(\.[\w@-]+)*")
_BLANKS = b"\0 \t\r\n"  # NUL: a half of them in UTF-16
_MARKS = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}


class EncodedEvent(NamedTuple):
    """A value for Kafka, and the piece that it holds."""

    value: bytes
    chunk: Chunk


@dataclass(slots=True)
class FeedCounts:
    """What became of a stream's lines. undecodable_at: the first place that is not text."""

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
    """Makes events of pieces. field: where a line that is not JSON is put; is_raw: such a line
    goes as it is."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.kind = "lines" if settings.form == "cri" else settings.form
        self.rule = line_rule(settings.time_from_line) if self.kind == "lines" else None
        most = settings.max_event_bytes
        self.max_bytes = most - _FRAME_BYTES if most > 8 * _FRAME_BYTES else most
        self.field = _text_field(settings)
        self.is_raw = self.kind == "json" and not self.field
        self.starts = record_start(settings.record_start)

    def encode(self, stream: str, piece: Chunk, counts: FeedCounts) -> Iterator[EncodedEvent]:
        """The piece in one event or several, none of them too large for a worker."""
        counts.bytes += len(piece.raw)
        counts.records += piece.raw.count(b"\n") or 1
        if piece.is_text():
            yield from self._of_text(stream, piece, counts)
            return
        for part in self._of_bad(piece, counts):
            if self.settings.encoding == "strict" and not part.is_text():
                yield from self._raw(part, counts)
            else:
                yield from self._of_text(stream, part, counts)

    def time_ms(self, piece: Chunk) -> int | None:
        """The piece's own time, which its first line says; None where that is not asked for."""
        if self.rule is None:
            return None
        first = next(piece.lines()).text()
        return line_time(first, self.rule, round(time.time() * 1000))

    def _of_text(self, stream: str, piece: Chunk, counts: FeedCounts) -> Iterator[EncodedEvent]:
        cut = self._json if self.kind == "json" else self._fitting
        return cut(stream, piece, counts)

    def _of_bad(self, piece: Chunk, counts: FeedCounts) -> Iterator[Chunk]:
        """Under `strict` the lines that are not text are apart from the others."""
        start, at = 0, 0
        for line in piece.lines():
            at += len(line.raw)
            if line.is_text():
                continue
            if counts.undecodable_at < 0:
                counts.undecodable_at = line.start
            if self.settings.encoding == "replace":
                counts.replaced += 1
                continue
            if start < line.start - piece.start:
                yield piece.slice(start, line.start - piece.start)
            yield line
            start = at
        if start < len(piece.raw):
            yield piece.slice(start, len(piece.raw))

    def _raw(self, line: Chunk, counts: FeedCounts) -> Iterator[EncodedEvent]:
        """A line that is not text as its bytes, for the worker's own rule; msgpack has no form
        for it. Behind a byte order mark UTF-16 is never taken for UTF-8."""
        if self.kind == "msgpack":
            counts.left_out += 1
            return
        counts.undecodable += 1
        counts.events += 1
        yield EncodedEvent((_MARKS.get(line.encoding, b"") + line.raw)[: self.max_bytes], line)

    def _json(self, stream: str, piece: Chunk, counts: FeedCounts) -> Iterator[EncodedEvent]:
        """Objects and arrays as they are, one an event; other records as text of an object."""
        start = at = 0  # of the record that is not JSON
        for line in piece.lines():
            text = line.to_utf8()
            if self._is_inside(piece.raw[start:at], line):
                pass
            elif len(text) <= self.max_bytes and _is_json(text):
                yield from self._wrapped(stream, piece.slice(start, at), counts)
                counts.events += 1
                yield EncodedEvent(text.strip(), line)
                start = at + len(line.raw)
            elif piece.raw[start:at].strip(_BLANKS) and self.starts(line.text()):
                yield from self._wrapped(stream, piece.slice(start, at), counts)
                start = at
            at += len(line.raw)
        yield from self._wrapped(stream, piece.slice(start, at), counts, alone=start == 0)

    def _is_inside(self, record: bytes, line: Chunk) -> bool:
        """Whether the line goes on with a document of several lines that is sent as it is."""
        is_open = self.is_raw and record.lstrip(_BLANKS)[:1] in (b"{", b"[")
        return is_open and not self.starts(line.text())

    def _wrapped(
        self, stream: str, record: Chunk, counts: FeedCounts, alone: bool = False
    ) -> Iterator[EncodedEvent]:
        """alone: there is nothing else, so even blank lines are sent."""
        if record.raw.strip(_BLANKS) or (alone and self.field):
            counts.not_json += 1
            yield from self._fitting(stream, record, counts)

    def _fitting(self, stream: str, piece: Chunk, counts: FeedCounts) -> Iterator[EncodedEvent]:
        value = self._encode(stream, piece)
        halves = piece.halve() if len(value) > self.max_bytes else ()
        if len(halves) < 2:
            counts.events += 1
            yield EncodedEvent(value, piece)
            return
        for half in halves:
            yield from self._fitting(stream, half, counts)

    def _encode(self, stream: str, piece: Chunk) -> bytes:
        if self.kind == "lines":
            whole = piece.encoding == "utf-8" and self.settings.encoding == "strict"
            return piece.raw if whole else piece.text().encode()
        if self.kind == "msgpack":
            return encode({"text": piece.text()}, as_json=False)
        if not self.field:
            text = piece.text()
            return (text.strip(" \t\r\n") or text).encode()  # an empty value deletes a key
        key = self.settings.key_field
        named = {key: stream} if key and ":" not in key else {}
        return encode({self.field: piece.text()} | named, as_json=True)


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
    """The field that a line that is not JSON is put in; none where the settings take the text
    from elsewhere, so that the worker reads the line itself, or says what is wrong with it."""
    has_preset = settings.input_format != settings.form
    if has_preset or settings.text or settings.records_field:
        return ""
    name = settings.text_field or "text"
    return name if _PLAIN_NAME.fullmatch(name) else ""
