"""TokenDecoder: an event of the tokens topic -> chunks of streams' texts with their times.

The settings choose the format: lines, lines of a container runtime, JSON or msgpack. Unusable
records of an event are reported together in one reason; the others are used.
"""

import json
from collections.abc import Iterator
from typing import Any

from stream_app.errors import BadEvent
from stream_app.events import Chunk
from stream_app.formats.documents import Bad, documents
from stream_app.formats.framing import Framed
from stream_app.formats.layout import Layout
from stream_app.formats.lines import Piece, cri_pieces, is_cri, timed
from stream_app.formats.notes import Notes
from stream_app.formats.packed import MSGPACK_MAPS, IdDecoder, map_of, text_of_ids
from stream_app.formats.partials import ends_line, is_partial
from stream_app.formats.paths import Scopes
from stream_app.formats.text import is_compressed, text_of
from stream_app.formats.times import parse_time
from stream_app.ingest.schema_registry import Registry
from stream_app.ingest.stream_names import Headers, Source, StreamNames
from stream_app.settings import Settings

MAX_RECORDS = 100_000
"""Records of an event at most."""
GROWTH = 4
"""The texts of an event have at most GROWTH times its bytes, plus `EXTRA_CHARS`."""
EXTRA_CHARS = 65_536
TOO_LARGE = f"the event's texts have more than {GROWTH} times its bytes and {EXTRA_CHARS}"
REASON_CHARS = 160
"""Length of the reason for one record of several."""

Decoded = tuple[list[Chunk], str]
"""The chunks of an event in order, and why some of its records are unusable; empty if none is."""


class TokenDecoder:
    """One per worker. notes: counts what is skipped or odd."""

    def __init__(
        self, settings: Settings, decode_ids: IdDecoder, notes: Notes | None = None
    ) -> None:
        self.settings = settings
        self.layout = Layout.of(settings)
        self.decode_ids = decode_ids
        self.notes = notes or Notes()
        self.errors = settings.encoding
        self.registry = Registry(settings)
        self._streams = StreamNames(settings, self.layout, self.registry, self.notes)
        forms = {"lines": self._lines, "cri": self._cri, "json": self._json}
        self._read = forms.get(self.layout.form, self._msgpack)

    def decode(
        self,
        key: bytes | None,
        value: bytes | None,
        *,
        source: str,
        time_ms: int,
        headers: Headers = (),
    ) -> Decoded:
        """Decode one event. source: the stream's name if nothing else names it; time_ms: Kafka's
        timestamp. Raises BadEvent if the whole event is unusable."""
        if not value:
            self.notes.on_skipped()
            return [], ""
        if (size := len(value)) > (limit := self.settings.max_event_bytes):
            raise BadEvent(
                f"the value has {size} bytes, more than the {limit} allowed (XL3M_MAX_EVENT_BYTES)"
            )
        event = Source(key, source, time_ms, headers, size)
        if (value[0] == 0 or headers) and (frame := self.registry.frame(value, headers)):
            return self._framed(frame, event)
        return self._read(value, event)

    def decode_value(self, value: bytes, source: Source) -> list[Any]:
        """The JSON documents in a value; Bad in place of one that cannot be read."""
        if value[0] in MSGPACK_MAPS and self.errors == "strict":
            raise BadEvent("the value is not a json map; it begins as msgpack does")
        is_wide = value[0] >= 0xFE or b"\0" in value[:4]  # as JSON begins in UTF-16 and UTF-32
        if is_wide and not is_compressed(value):
            value = value.decode(json.detect_encoding(value), "replace").encode(errors="replace")
        return documents(self._text(value))

    def _framed(self, frame: Framed, source: Source) -> Decoded:
        """Decode a value that names a schema."""
        if self.layout.form == "json":
            return self._of_documents([self.registry.decode(frame)], source)
        if text := self.registry.text(frame):
            return self._line(text, source)
        self.notes.on_skipped()
        return [], ""

    # -- forms -------------------------------------------------------------------------------

    def _lines(self, value: bytes, source: Source) -> Decoded:
        return self._line(self._text(value), source)

    def _line(self, text: str, source: Source) -> Decoded:
        text = text if text[-1:] == "\n" else text + "\n"
        stream, rule = self._streams.of_event(source), self.layout.rule
        if rule is None:
            return [Chunk(stream, text, source.time_ms)], ""
        pieces = [*timed(text, rule, source.time_ms)]
        if pieces[-1].time_ms is None:
            self.notes.untimed_line(stream, text)
        return [_chunk(stream, piece, source.time_ms) for piece in pieces], ""

    def _cri(self, value: bytes, source: Source) -> Decoded:
        stream = self._streams.of_event(source)
        pieces = cri_pieces(self._text(value), source.time_ms)
        return [_chunk(stream, piece, source.time_ms) for piece in pieces], ""

    def _msgpack(self, value: bytes, source: Source) -> Decoded:
        fields = map_of(value, self.errors)
        stream = self._streams.of_record((fields,), source)
        time_ms = self._own_time((fields,), stream, source) or source.time_ms
        if "ids" in fields:
            text = text_of_ids(fields["ids"], self.decode_ids)
        elif "text" in fields:
            text = fields["text"]
        else:
            raise BadEvent("field 'text' is missing")
        if text is None or text == "":
            self.notes.on_skipped()
            return [], ""
        if not isinstance(text, str):
            raise BadEvent(f"field 'text' must be str, not {type(text).__name__}")
        return [Chunk(stream, text, time_ms)], ""

    def _json(self, value: bytes, source: Source) -> Decoded:
        return self._of_documents(self.decode_value(value, source), source)

    def _of_documents(self, found: list[Any], source: Source) -> Decoded:
        if len(found) == 1 and type(found[0]) is dict and self.layout.is_plain:
            return self._single(found[0], source)
        records = [*self._records(found)]
        if len(records) > MAX_RECORDS:
            raise BadEvent(f"the event has more than {MAX_RECORDS} records")
        return self._decoded(records, source)

    # -- records of JSON ---------------------------------------------------------------------

    def _records(self, found: list[Any]) -> Iterator[Scopes | Bad]:
        """The records of all documents; a list counts as its documents."""
        for each in found:
            for document in each if isinstance(each, list) else (each,):
                if isinstance(document, Bad):
                    yield document
                elif document is None or self._is_excluded(document):
                    self.notes.on_skipped()
                elif not isinstance(document, dict):
                    yield Bad(f"it is a JSON {_kind(document)}, not an object")
                elif not self.layout.has_records(document):
                    yield Bad(self.layout.missing_records)
                else:
                    yield from self.layout.fan_out(document)

    def _is_excluded(self, document: Any) -> bool:
        unless = self.layout.preset.unless
        return bool(unless and isinstance(document, dict) and document.get(unless[0]) == unless[1])

    def _single(self, record: dict[str, Any], source: Source) -> Decoded:
        """A fast path for the usual case: the event is one record."""
        try:
            chunks = self._record((record,), source)
        except RecursionError as error:
            raise BadEvent(f"the text is nested too deep: {error}") from None
        if _chars(chunks) > GROWTH * source.size + EXTRA_CHARS:
            raise BadEvent(TOO_LARGE)
        return chunks, ""

    def _decoded(self, records: list[Scopes | Bad], source: Source) -> Decoded:
        chunks, faults, chars_left = list[Chunk](), list[str](), GROWTH * source.size + EXTRA_CHARS
        for number, record in enumerate(records, 1):
            try:
                if isinstance(record, Bad):
                    raise BadEvent(record.reason)
                new = self._record(record, source)
                chars_left -= _chars(new)
                if chars_left < 0:
                    raise BadEvent(TOO_LARGE)
                chunks += new
            except (BadEvent, RecursionError) as error:
                faults.append(f"record {number} of {len(records)}: {str(error)[:REASON_CHARS]}")
        if len(records) == len(faults) == 1:
            raise BadEvent(faults[0].removeprefix("record 1 of 1: "))
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return chunks, faults[0] + more if faults else ""

    def _record(self, scopes: Scopes, source: Source) -> list[Chunk]:
        """The chunks of a record: usually one, several for lines of a container runtime."""
        layout = self.layout
        if layout.text_paths and not isinstance(scopes[0], dict | None):
            raise BadEvent(f"it is a JSON {_kind(scopes[0])}, not an object")
        text = layout.text(scopes) if scopes[0] is not None else None
        if layout.behind and (behind := layout.behind(scopes)):
            text = behind if not text or behind.startswith(text) else f"{text}\n{behind}"
        if text is None:
            if scopes[0] is not None and not layout.has_text(scopes):
                raise BadEvent(layout.missing_text)
            if not (layout.joins and ends_line(scopes[0])):
                self.notes.on_skipped()
                return []
            text = ""
        stream = self._streams.of_record(scopes, source)
        own_ms = self._own_time(scopes, stream, source)
        if not layout.joins:
            text = text if text[-1] == "\n" else text + "\n"
            return [Chunk(stream, text, own_ms or source.time_ms)]
        pieces = self._pieces(scopes[0], text, source)
        return [Chunk(stream, text, own_ms or ms or source.time_ms) for text, ms in pieces]

    def _pieces(self, record: Any, text: str, source: Source) -> list[Piece]:
        if is_cri(text):
            return [*cri_pieces(text, source.time_ms)]
        if is_partial(record, text, self.layout.preset.partial):
            return [Piece(text, None)]
        return [Piece(text if text[-1:] == "\n" else text + "\n", None)]

    # -- times and texts ---------------------------------------------------------------------

    def _own_time(self, scopes: Scopes, stream: str, source: Source) -> int | None:
        """The first of a record's times that can be parsed."""
        unparsed = None
        for path in self.layout.times:
            if (value := path(scopes)) is not None:
                if (time_ms := parse_time(value, source.time_ms)) is not None:
                    return time_ms
                unparsed = value
        if unparsed is not None:
            self.notes.unparsed_time(stream, unparsed)
        return None

    def _text(self, value: bytes) -> str:
        return text_of(value, "value", self.errors)


def _chunk(stream: str, piece: Piece, time_ms: int) -> Chunk:
    return Chunk(stream, piece.text, piece.time_ms or time_ms)


def _chars(chunks: list[Chunk]) -> int:
    return len(chunks[0].text) if len(chunks) == 1 else sum(len(chunk.text) for chunk in chunks)


def _kind(document: Any) -> str:
    kinds = ((bool, "boolean"), (str, "string"), (list, "array"), (dict, "object"))
    return next((name for kind, name in kinds if isinstance(document, kind)), "number")
