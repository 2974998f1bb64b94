"""Keys: the name of a stream in an event's key, however a producer writes keys.

Bytes -> a name, or BadEvent with the setting that would read them. A key is looked at only where
it is needed: a stream that has its name from a field or a header may have a key of any bytes.
"""

from collections.abc import Callable, Iterable
from uuid import UUID

from stream_app.errors import BadEvent

FORMATS_OF_SIZE = {4: "int", 8: "long", 16: "uuid"}
"""What a binary key of so many bytes probably is."""


def stream_of_key(key: bytes | None, key_format: str) -> str | None:
    """The name in the key; None if there is no key, or it names no stream. Raises BadEvent."""
    if not key:
        return None
    return READERS[key_format](key)


def stream_of_header(headers: Iterable[tuple[str, bytes | None]], name: str) -> str | None:
    """The name in the last header called so; None if there is none, or it is no text."""
    values = [value for header, value in headers if header == name]
    try:
        return values[-1].decode() if values and values[-1] else None
    except UnicodeDecodeError:
        return None


def looks_binary(key: bytes | None) -> bool:
    """Whether a key that is valid UTF-8 is probably a number: text holds no NUL."""
    return key is not None and b"\0" in key


def hint(key: bytes) -> str:
    """Which settings would read the key."""
    likely = FORMATS_OF_SIZE.get(len(key))
    guess = f"; it has {len(key)} bytes, as {likely} has" if likely else ""
    return f"for binary keys set XL3M_KEY_FORMAT=hex|long|int|uuid|none{guess}"


def _utf8(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        reason = f"the key is not UTF-8: byte {error.start} is wrong; {hint(key)}"
        raise BadEvent(reason) from None


def _number(size: int, name: str) -> Callable[[bytes], str]:
    """Reads what Kafka's own serializers write: big-endian, signed."""

    def read(key: bytes) -> str:
        if len(key) != size:
            setting = f"XL3M_KEY_FORMAT={name}"
            raise BadEvent(f"the key has {len(key)} bytes, not the {size} of {setting}")
        return str(int.from_bytes(key, "big", signed=True))

    return read


def _uuid(key: bytes) -> str:
    """16 bytes, or the text of a UUID in any of its forms."""
    try:
        return str(UUID(bytes=key) if len(key) == 16 else UUID(key.decode()))
    except ValueError:
        setting = "XL3M_KEY_FORMAT=uuid"
        raise BadEvent(f"the key is neither 16 bytes nor the text of a UUID: {setting}") from None


READERS: dict[str, Callable[[bytes], str | None]] = {
    "utf8": _utf8,
    "hex": bytes.hex,
    "long": _number(8, "long"),
    "int": _number(4, "int"),
    "uuid": _uuid,
    "none": lambda key: None,
}
