"""Addressing: the key and the headers that tell a worker which stream an event belongs to."""

import struct
import uuid

from stream_app.errors import SettingsError
from stream_app.events import stream_name
from stream_app.settings import Settings
from stream_app.settings.variables import variable

_IN_HEADER = "header:"
_INTEGERS = {"long": ">q", "int": ">i"}


def event_key(settings: Settings, stream: str) -> bytes:
    """The key of the stream's events. Raises SettingsError if the name does not fit the format."""
    name = stream_name(stream)
    if settings.key_field:  # the key only keeps the stream in one partition
        return name.encode()
    try:
        if settings.key_format == "hex":
            return bytes.fromhex(name)
        if settings.key_format == "uuid":
            return str(uuid.UUID(name)).encode()
        if settings.key_format in _INTEGERS:
            return struct.pack(_INTEGERS[settings.key_format], int(name))
    except (ValueError, struct.error):
        raise SettingsError(
            f"a stream cannot be called {name!r} with {variable('key_format')}="
            f"{settings.key_format}: name another with --stream, or unset it"
        ) from None
    return name.encode()


def event_headers(settings: Settings, stream: str) -> list[tuple[str, bytes]]:
    """The header that names the stream, if the settings use one."""
    if not settings.key_field.startswith(_IN_HEADER):
        return []
    return [(settings.key_field.removeprefix(_IN_HEADER), stream.encode())]
