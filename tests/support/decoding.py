"""Decoders of the tokens topic that count skipped records, missing keys and unparsed times."""

import json
from typing import Any

from stream_app.events import Chunk
from stream_app.formats.notes import Notes
from stream_app.ingest.decoder import TokenDecoder
from stream_app.settings import Settings

KAFKA_MS = 1_700_000_000_000
MS = 1_764_496_800_000
T0 = 1_796_032_800_000
"""2026-11-30T10:00:00Z"""


class Counted(Notes):
    """Counts the notes."""

    def __init__(self) -> None:
        super().__init__(
            on_skipped=lambda: setattr(self, "skipped", self.skipped + 1),
            on_missing_key=lambda: setattr(self, "missing_keys", self.missing_keys + 1),
            on_unparsed_time=lambda: setattr(self, "unparsed", self.unparsed + 1),
        )
        self.skipped = self.missing_keys = self.unparsed = 0


class Counting(TokenDecoder):
    """A decoder whose notes are counted."""

    notes: Counted

    def __init__(self, settings: Settings, decode_ids: Any) -> None:
        super().__init__(settings, decode_ids, Counted())


def decoder(**settings: Any) -> Counting:
    """A counting decoder with these settings."""
    return Counting(Settings.from_env({}, **settings), lambda ids: "")


def decoded(
    made: TokenDecoder, value: Any, key: bytes | None = b"key", headers: Any = ()
) -> tuple[list[Chunk], str]:
    """The chunks of an event, and the reason if it is unusable."""
    value = value if isinstance(value, bytes) else json.dumps(value).encode()
    return made.decode(key, value, source="t/0", time_ms=KAFKA_MS, headers=headers)


def chunks(value: Any, key: bytes | None = b"key", headers: Any = (), **settings: Any) -> list[Any]:
    """(stream, text, time) of each chunk of an event that is usable as a whole."""
    found, reason = decoded(decoder(**settings), value, key, headers)
    assert not reason
    return [(chunk.stream, chunk.text, chunk.time_ms) for chunk in found]
