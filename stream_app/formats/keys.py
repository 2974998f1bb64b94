"""Keys: the stream's name in the key of an event, in any of Kafka's usual key formats.

A key is decoded only if it is needed: if a field or a header names the stream, it may be any bytes.
"""

from collections.abc import Callable, Iterable
from uuid import UUID

from stream_app.errors import BadEvent

FORMATS_OF_SIZE = {4: "int", 8: "long", 16: "uuid"}
"""Length of a binary key in bytes -> its probable format."""


def stream_of_key(key: bytes | None, key_format: str) -> str | None:
    """The name in the key; None without a key or with the format `none`. Raises BadEvent."""
    if not key:
        return None
    return READERS[key_format](key)


def stream_of_header(headers: Iterable[tuple[str, bytes | None]], name: str) -> str | None:
    """The name in the last header of that name; None if there is none, or it is not UTF-8."""
    values = [value for header, value in headers if header == name]
    try:
        return values[-1].decode() if values and values[-1] else None
    except UnicodeDecodeError:
        return None


def looks_binary(key: bytes | None) -> bool:
    """Whether a key that is valid UTF-8 is probably a number: it has a NUL, which text has not."""
    return key is not None and b"\0" in key


def hint(key: bytes) -> str:
    """The settings to try for the key."""
    likely = FORMATS_OF_SIZE.get(len(key))
    guess = f"; it has {len(key)} bytes, like {likely}" if likely else ""
    return f"for binary keys set XL3M_KEY_FORMAT=hex|long|int|uuid|none{guess}"


def _utf8(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        reason = f"the key is not UTF-8: byte {error.start} is wrong; {hint(key)}"
        raise BadEvent(reason) from None


def _number(size: int, name: str) -> Callable[[bytes], str]:
    """A reader for Kafka's own serializers: big-endian, signed."""

    def read(key: bytes) -> str:
        if len(key) != size:
            setting = f"XL3M_KEY_FORMAT={name}"
            raise BadEvent(f"the key has {len(key)} bytes, not {size} as {setting} needs")
        return str(int.from_bytes(key, "big", signed=True))

    return read


def _uuid(key: bytes) -> str:
    """The UUID in 16 bytes, or in text."""
    try:
        return str(UUID(bytes=key) if len(key) == 16 else UUID(key.decode()))
    except ValueError:
        setting = "XL3M_KEY_FORMAT=uuid"
        raise BadEvent(f"the key is no UUID, neither as 16 bytes nor as text: {setting}") from None


READERS: dict[str, Callable[[bytes], str | None]] = {
    "utf8": _utf8,
    "hex": bytes.hex,
    "long": _number(8, "long"),
    "int": _number(4, "int"),
    "uuid": _uuid,
    "none": lambda key: None,
}
