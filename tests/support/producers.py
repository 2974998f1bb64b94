"""Events from Confluent's own serializers, with a schema registry."""

import datetime
import decimal
import json
from typing import Any

from confluent_kafka.schema_registry import Schema as RegistrySchema
from confluent_kafka.schema_registry import (
    SchemaReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, timestamp_pb2
from google.protobuf.message_factory import GetMessageClass

TIME = datetime.datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=datetime.UTC)
HOST = {
    "type": "record",
    "name": "com.acme.Host",
    "fields": [{"name": "name", "type": "string"}],
}
LOG = {
    "type": "record",
    "name": "com.acme.Log",
    "fields": [
        {"name": "message", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "host", "type": ["null", "com.acme.Host"]},
        {"name": "level", "type": {"type": "enum", "name": "Level", "symbols": ["INFO", "ERROR"]}},
        {
            "name": "took",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        },
        {"name": "raw", "type": "bytes"},
        {"name": "tags", "type": {"type": "map", "values": "string"}},
    ],
}
RECORD = {
    "message": "pool closed",
    "at": TIME,
    "host": {"name": "web-1"},
    "level": "ERROR",
    "took": decimal.Decimal("-12.30"),
    "raw": b"caf\xc3\xa9",
    "tags": {"zone": "a"},
}
JSON_SCHEMA = (
    '{"$schema": "http://json-schema.org/draft-07/schema#", "title": "Log", "type": "object", '
    '"properties": {"message": {"type": "string"}, "host": {"type": "string"}}}'
)


class Producer:
    """Serializes for one topic at a time."""

    def __init__(self, url: str, topic: str = "t", **options: Any) -> None:
        self.client = SchemaRegistryClient({"url": url} | options)
        self.topic = topic

    def on(self, topic: str) -> "Producer":
        """Switch to another topic; returns itself."""
        self.topic = topic
        return self

    def avro(self, schema: str, value: Any, field: str = "value", guid: bool = False) -> Any:
        """Avro, with a schema that is registered unless it exists. guid: also returns the headers,
        which then name the schema."""
        conf = self._conf(guid)
        serializer = AvroSerializer(self.client, schema, conf=conf)
        return self._written(serializer, value, field, guid)

    def avro_with_reference(self, value: Any) -> Any:
        """A value of LOG, whose host is a schema of its own."""
        self.client.register_schema("host", RegistrySchema(json.dumps(HOST), "AVRO"))
        reference = SchemaReference("com.acme.Host", "host", 1)
        schema = RegistrySchema(json.dumps(LOG), "AVRO", [reference])
        serializer = AvroSerializer(self.client, schema)
        return self._written(serializer, value, "value", False)

    def json(self, value: Any) -> Any:
        serializer = JSONSerializer(JSON_SCHEMA, self.client)
        return self._written(serializer, value, "value", False)

    def protobuf(self, message: Any, field: str = "value", guid: bool = False) -> Any:
        serializer = ProtobufSerializer(type(message), self.client, conf=self._conf(guid))
        return self._written(serializer, message, field, guid)

    def _conf(self, guid: bool) -> dict[str, Any]:
        return {"schema.id.serializer": header_schema_id_serializer} if guid else {}

    def _written(self, serializer: Any, value: Any, field: str, guid: bool) -> Any:
        kind = MessageField.KEY if field == "key" else MessageField.VALUE
        headers: list[Any] = []
        context = SerializationContext(self.topic, kind, headers)
        data = serializer(value, context)
        return (data, headers) if guid else data


def messages() -> dict[str, Any]:
    """Message classes of a file with nested messages, which imports another and Timestamp."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(_common())
    pool.Add(_event())
    names = ("acme.Host", "acme.First", "acme.Outer", "acme.Outer.Inner")
    return {name: GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}


def _common() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="acme/common.proto", package="acme", syntax="proto3"
    )
    _message(file.message_type.add(name="Host"), name="string")
    return file


def _event() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="acme/event.proto", package="acme", syntax="proto3"
    )
    file.dependency.extend(["acme/common.proto", "google/protobuf/timestamp.proto"])
    _message(file.message_type.add(name="First"), id="int64")
    outer = file.message_type.add(name="Outer")
    _message(outer.nested_type.add(name="Unused"), id="int64")
    _message(outer.nested_type.add(name="Inner"), message="string", raw="bytes")
    _message(
        outer, message="string", at=".google.protobuf.Timestamp", host=".acme.Host",
        inner=".acme.Outer.Inner", count="int64",
    )  # fmt: skip
    return file


def _message(made: Any, **fields: str) -> None:
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, (name, kind) in enumerate(fields.items(), 1):
        field = made.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
        if kind.startswith("."):
            field.type, field.type_name = kinds.TYPE_MESSAGE, kind
        else:
            field.type = getattr(kinds, f"TYPE_{kind.upper()}")
