"""StreamNames: the stream that an event or a record belongs to, by its fields, header or key."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from stream_app.events import STREAM_BYTES, stream_name
from stream_app.formats.keys import looks_binary, stream_of_header, stream_of_key
from stream_app.formats.layout import Layout
from stream_app.formats.notes import Notes
from stream_app.formats.paths import Scopes
from stream_app.ingest.schema_registry import Registry
from stream_app.settings import Settings

CACHED_NAMES = 4096
"""Stream names that are cached by their keys."""

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(slots=True)
class Source:
    """An event without its value. name: the stream's, if nothing else names it; time_ms: Kafka's
    timestamp; size: of the value; found: the stream's name in a header, once it was looked up."""

    key: bytes | None
    name: str
    time_ms: int
    headers: Headers
    size: int
    found: str | None = field(default=None, repr=False)


class StreamNames:
    """The stream names of one decoder; names of keys are cached."""

    def __init__(
        self, settings: Settings, layout: Layout, registry: Registry, notes: Notes
    ) -> None:
        self.settings = settings
        self.layout = layout
        self.registry = registry
        self.notes = notes
        self._cached: dict[bytes | str, str] = {}

    def of_record(self, scopes: Scopes, source: Source) -> str:
        """The stream's name in a record, else that of the event."""
        if self.layout.key is None:
            return self.of_event(source)
        if name := self.layout.key(scopes):
            return stream_name(name)
        self.notes.on_missing_key()
        return self._of_key(source)

    def of_event(self, source: Source) -> str:
        """The stream's name for all records of an event."""
        if not self.layout.header:
            return self._of_key(source)
        if source.found is None:
            if name := stream_of_header(source.headers, self.layout.header):
                source.found = stream_name(name)
            else:
                self.notes.on_missing_key()
        return source.found or self._of_key(source)

    def _of_key(self, source: Source) -> str:
        if (name := self.registry.name(source.key, source.headers)) is not None:
            return stream_name(name)
        if (known := self._cached.get(source.key or source.name)) is not None:
            return known
        name = stream_of_key(source.key, self.settings.key_format)
        if self.settings.key_format == "utf8" and looks_binary(source.key):
            self.notes.binary_key(source.key or b"")
        name = stream_name(name or source.name)
        if self.settings.key_format == "none" or len(source.key or b"") > STREAM_BYTES:
            return name
        if len(self._cached) == CACHED_NAMES:
            self._cached.clear()
        self._cached[source.key or source.name] = name
        return name
