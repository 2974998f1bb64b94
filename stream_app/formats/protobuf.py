"""Protobuf: builds a decoder from a file's descriptor and those it imports.

Decoded messages are maps, as in protobuf's JSON. Indexes before a message select its type.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka.schema_registry.common.protobuf import _init_pool
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from stream_app.errors import BadEvent

# Nested message types; no real schema has more.
DEEPEST = 32
VARINT_BYTES = 5

Reader = Callable[[bytes, bytes | None], Any]


def protobuf_reader(file: str, imports: Mapping[str, str]) -> Reader:
    """A decoder; it raises BadEvent. file: the descriptor in base64, as the registry serialises it;
    imports: name -> descriptor, each before those that import it. Raises ValueError for an invalid
    schema."""
    try:
        pool = DescriptorPool()
        _init_pool(pool)
        for name, text in imports.items():
            pool.Add(_file(text, name))
        made = _file(file, "value.proto")
        pool.Add(made)
        found = pool.FindFileByName(made.name)
    except (ValueError, KeyError, TypeError, DecodeError) as error:
        raise ValueError(
            f"it cannot be made out ({error}): the registry must give Protobuf schemas with "
            "`format=serialized`"
        ) from error
    top = [found.message_types_by_name[message.name] for message in made.message_type]

    def take(payload: bytes, indexes: bytes | None) -> Any:
        path, begin = _indexes(payload if indexes is None else indexes)
        message = GetMessageClass(_message(top, path))()
        try:
            message.ParseFromString(payload[begin:] if indexes is None else payload)
            fields = json_format.MessageToDict(
                message, preserving_proto_field_name=True, descriptor_pool=pool
            )
            return _with_empty_texts(message.DESCRIPTOR, fields)
        except (DecodeError, json_format.Error, ValueError, TypeError, RecursionError) as error:
            kind = type(error).__name__
            raise BadEvent(f"it does not match its schema ({kind})") from None

    return take


def _file(text: str, name: str) -> FileDescriptorProto:
    made = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    made.name = name
    return made


def _with_empty_texts(descriptor: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """Adds empty texts, which are not transmitted but are not missing fields."""
    for field in descriptor.fields:
        is_text = field.type == field.TYPE_STRING and not field.is_repeated
        if is_text and not field.has_presence:
            fields.setdefault(field.name, "")
    return fields


def _message(top: list[Any], path: list[int]) -> Any:
    """The descriptor of the message type at the path. Raises BadEvent."""
    within = top
    for depth, index in enumerate(path):
        if not 0 <= index < len(within):
            raise BadEvent(f"its schema has no message {path}")
        found = within[index]
        if depth < len(path) - 1:
            within = list(found.nested_types)
    return found


def _indexes(data: bytes) -> tuple[list[int], int]:
    """The path of indexes to the message type, and where the payload begins: a count, then the
    indexes; a single 0 means the first type."""
    count, at = _varint(data, 0)
    if count == 0:
        return [0], at
    if not 0 < count <= DEEPEST:
        raise BadEvent("it does not begin with the indexes of a Protobuf message type")
    path = []
    for _ in range(count):
        index, at = _varint(data, at)
        path.append(index)
    return path, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag number, and the position after it."""
    number = 0
    for place, byte in enumerate(data[at : at + VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at + place + 1
    raise BadEvent("it does not begin with the indexes of a Protobuf message type")
