"""Topic ids: tell a recreated topic from the deleted one.

Since 2.8 Kafka gives each topic an id at its creation. The id is part of metadata version 10, which
aiokafka does not have: this module defines that one request.
"""

import uuid
from collections.abc import Iterable
from typing import Any

from aiokafka.errors import IncompatibleBrokerVersion, NoError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

_SEPARATOR = "/"


class _Uuid:
    """Kafka's type for a UUID: 16 bytes."""

    @staticmethod
    def encode(value: uuid.UUID) -> bytes:
        return value.bytes

    @staticmethod
    def decode(data: Any) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))

    @staticmethod
    def repr(value: uuid.UUID) -> str:
        return str(value)


_NO_ID: Any = uuid.UUID(int=0)
_UUID: Any = _Uuid
_TEXT, _NUMBERS, _TAGS = CompactString("utf-8"), CompactArray(Int32), ("tags", TaggedFields)
_BROKERS: Array = CompactArray(
    ("id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS
)
_PARTITIONS: Array = CompactArray(
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", _NUMBERS),
    ("isr", _NUMBERS),
    ("offline", _NUMBERS),
    _TAGS,
)


class _MetadataResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", _BROKERS),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _TEXT),
                ("id", _UUID),
                ("is_internal", Boolean),
                ("partitions", _PARTITIONS),
                ("operations", Int32),
                _TAGS,
            ),
        ),
        ("operations", Int32),
        _TAGS,
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("id", _UUID), ("name", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _MetadataRequest(Request[_MetadataStruct]):  # type: ignore[misc]
    """A request for the metadata of some topics; it creates none."""

    API_KEY = 3

    def __init__(self, names: Iterable[str]) -> None:
        self.names = names

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        """Called by aiokafka."""
        tags = dict[int, bytes]()
        topics = [(_NO_ID, name, tags) for name in self.names]
        return request_struct_class(topics, False, False, False, tags)


async def topic_ids(client: Any, names: Iterable[str]) -> dict[str, str]:
    """CLUSTER/ID of each topic that exists; empty if the broker has no ids. client: aiokafka's.
    Raises KafkaError."""
    node = client.get_random_node()
    if node is None:
        return {}
    try:
        metadata = await client.send(node, _MetadataRequest(sorted(names)))
    except (NotImplementedError, IncompatibleBrokerVersion):
        return {}
    return {
        topic[1]: f"{metadata.cluster_id}{_SEPARATOR}{topic[2].hex}"
        for topic in metadata.topics
        if for_code(topic[0]) is NoError and topic[2] != _NO_ID
    }


def is_other_topic(known: str, seen: str) -> bool:
    """Whether two ids are of different topics in one cluster. A topic of the same name in another
    cluster may be a copy, with the same offsets."""
    return bool(known and seen) and known != seen and is_same_cluster(known, seen)


def is_same_cluster(known: str, seen: str) -> bool:
    """Whether two ids are of topics in the same cluster."""
    return known.rpartition(_SEPARATOR)[0] == seen.rpartition(_SEPARATOR)[0]
