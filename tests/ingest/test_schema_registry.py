"""The schema registry: values of Confluent's serializers are decoded to JSON-like data. A registry
that is down is waited for, an unknown schema is a bad event, and no bytes end the process.
"""

import json
import logging
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.cli.doctor import registry_findings
from stream_app.errors import BadEvent, RegistryError, SettingsError
from stream_app.formats.avro import avro_reader
from stream_app.formats.framing import framed
from stream_app.ingest import schema_registry as registry_module
from stream_app.ingest.schema_registry import Registry, text_of_key
from stream_app.runtime import retry
from stream_app.runtime.retry import Health, retry_forever
from stream_app.settings import Settings
from tests.support import producers, registries, secured
from tests.support.producers import LOG, RECORD, Producer, messages
from tests.support.registries import Schemas

PAIR = {
    "type": "record",
    "name": "Pair",
    "fields": [{"name": "level", "type": "string"}, {"name": "message", "type": "string"}],
}


@pytest.fixture
def schemas() -> Iterator[Schemas]:
    """A registry without schemas."""
    with registries.registry() as made:
        yield made


@pytest.fixture
def producer(schemas: Schemas) -> Iterator[Producer]:
    """A client that writes with it."""
    made = Producer(schemas.url)
    yield made
    made.client.close()


_open: list[Registry] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """No connection outlives its test."""
    yield
    close()


def close() -> None:
    """All clients that were opened."""
    while _open:
        _open.pop().close()


def reading(schemas: Schemas, **changes: Any) -> Registry:
    """A worker's Registry for this registry."""
    settings = Settings.from_env({}, input_format="json", schema_registry=schemas.url, **changes)
    _open.append(Registry(settings))
    return _open[-1]


async def read(reader: Registry, value: bytes, headers: Any = (), what: str = "value") -> Any:
    """Decode as ingest does: fetch the schema first."""
    await reader.prepare([(value, None, headers) if what == "key" else (None, value, headers)])
    frame = reader.frame(value, headers, what)
    assert frame is not None
    return reader.decode(frame, what)


def wire(id: int, payload: bytes) -> bytes:
    return b"\0" + struct.pack(">I", id) + payload


# -- what serializers write ----------------------------------------------------------------------


@pytest.mark.guarantee("Event formats")
async def test_avro_with_a_reference_and_logical_types_is_read(
    schemas: Schemas, producer: Producer
) -> None:
    value = producer.avro_with_reference(RECORD)
    assert await read(reading(schemas), value) == {
        "message": "pool closed",
        "at": "2024-05-01T12:00:00.250000+00:00",
        "host": {"name": "web-1"},
        "level": "ERROR",
        "took": "-12.30",
        "raw": "café",
        "tags": {"zone": "a"},
    }


async def test_json_schema_is_the_json_behind_five_bytes(
    schemas: Schemas, producer: Producer
) -> None:
    value = producer.json({"message": "x", "host": "web-1"})
    assert value[:1] == b"\0"
    assert await read(reading(schemas), value) == {"message": "x", "host": "web-1"}


@pytest.mark.guarantee("Event formats")
async def test_protobuf_with_imports_and_nested_messages_is_read(
    schemas: Schemas, producer: Producer
) -> None:
    classes = messages()
    outer = classes["acme.Outer"](message="pool closed", count=2**40)
    outer.at.FromDatetime(producers.TIME)
    outer.host.name = "web-1"
    outer.inner.message = "within"
    reader = reading(schemas)
    assert await read(reader, producer.protobuf(outer)) == {
        "message": "pool closed",
        "at": "2024-05-01T12:00:00.250Z",
        "host": {"name": "web-1"},
        "inner": {"message": "within"},
        "count": str(2**40),
    }
    inner = classes["acme.Outer.Inner"](raw=b"\xff")
    said = await read(reader, producer.on("inner").protobuf(inner))
    assert said == {"message": "", "raw": "/w=="}
    first = classes["acme.First"](id=7)
    assert await read(reader, producer.on("first").protobuf(first)) == {"id": "7"}


async def test_a_schema_may_be_named_by_its_guid_in_a_header(
    schemas: Schemas, producer: Producer
) -> None:
    reader = reading(schemas)
    value, headers = producer.avro(json.dumps(PAIR), {"level": "I", "message": "x"}, guid=True)
    assert value[:1] != b"\0" and headers
    assert await read(reader, value, headers) == {"level": "I", "message": "x"}
    made = messages()["acme.Outer.Inner"](message="within")
    value, headers = producer.on("p").protobuf(made, guid=True)
    assert await read(reader, value, headers) == {"message": "within"}


async def test_a_guid_is_no_fault_of_a_registry_that_has_no_path_for_them(
    schemas: Schemas, producer: Producer
) -> None:
    value, headers = producer.avro(json.dumps(PAIR), {"level": "I", "message": "x"}, guid=True)
    schemas.guids = False
    with pytest.raises(BadEvent, match="is not in the registry"):
        await read(reading(schemas), value, headers)


async def test_nor_is_it_the_events_where_there_is_no_registry_at_the_url(
    schemas: Schemas, producer: Producer
) -> None:
    value, headers = producer.avro(json.dumps(PAIR), {"level": "I", "message": "x"}, guid=True)
    schemas.failing = 404
    with pytest.raises(RegistryError, match="there is none at that URL"):
        await reading(schemas).prepare([(None, value, headers)])


async def test_keys_in_the_wire_format_are_names(schemas: Schemas, producer: Producer) -> None:
    reader = reading(schemas)
    string = producer.on("s").avro('"string"', "user-9", "key")
    assert text_of_key(await read(reader, string, what="key")) == "user-9"
    one = {"type": "record", "name": "K", "fields": [{"name": "id", "type": "string"}]}
    key = producer.on("one").avro(json.dumps(one), {"id": "user-9"}, "key")
    assert text_of_key(await read(reader, key, what="key")) == "user-9"
    key = producer.on("two").avro(json.dumps(PAIR), {"level": "a", "message": "b"}, "key")
    assert text_of_key(await read(reader, key, what="key")) == '{"level":"a","message":"b"}'


# -- what is wrong with it -----------------------------------------------------------------------


async def test_a_schema_nobody_knows_is_a_bad_event_with_its_id(schemas: Schemas) -> None:
    reader = reading(schemas)
    for _ in range(3):
        with pytest.raises(BadEvent, match="the value cannot be decoded: schema id 17 is not in"):
            await read(reader, wire(17, b"\x02x"))
    assert len(schemas.requests) == 1
    schemas.add("t-value", {"schema": json.dumps(PAIR)}, id=17)
    reader.clock = lambda: 1e12
    assert await read(reader, wire(17, b"\x02I\x02x")) == {"level": "I", "message": "x"}


@pytest.mark.parametrize("id", [2**31, 2**32 - 1])
async def test_an_id_that_is_none_is_not_asked_for(schemas: Schemas, id: int) -> None:
    with pytest.raises(BadEvent, match=f"schema id {id} is none"):
        await read(reading(schemas), wire(id, b"x"))
    assert not schemas.requests


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "does not match its schema"),
        (b"\x0eERROR", "does not match its schema"),
        (b"\x02\xff\x02x", "does not match its schema"),
        (b"\x02I\x02xy", "1 more bytes"),
    ],
)
async def test_bytes_of_another_schema_are_a_bad_event(
    schemas: Schemas, payload: bytes, reason: str
) -> None:
    schemas.add("t-value", {"schema": json.dumps(PAIR)}, id=17)
    with pytest.raises(BadEvent, match=f"schema id 17: .*{reason}"):
        await read(reading(schemas), wire(17, payload))


@pytest.mark.parametrize(
    "schema",
    [
        {"schema": "{"},
        {"schema": '{"type": "nosuch"}'},
        {"schema": '["com.acme.Host"]'},
        {"schema": '{"type": "array", "items": "null"}'},
        {"schema": "{}", "schemaType": "THRIFT"},
        {"schema": "x", "schemaType": "PROTOBUF"},
    ],
)
async def test_a_schema_that_cannot_be_used_is_a_bad_event(
    schemas: Schemas, schema: dict[str, str]
) -> None:
    schemas.add("t-value", schema, id=17)
    with pytest.raises(BadEvent, match="schema id 17 cannot be used"):
        await read(reading(schemas), wire(17, b"\x02\x02\0"))


async def test_a_registry_without_descriptors_is_said_to_be_so(
    schemas: Schemas, producer: Producer
) -> None:
    schemas.serialized = False
    value = producer.protobuf(messages()["acme.First"](id=7))
    with pytest.raises(BadEvent, match="format=serialized"):
        await read(reading(schemas), value)


LIST = {
    "type": "record",
    "name": "List",
    "fields": [{"name": "next", "type": ["null", "List"]}],
}


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize(
    "payload",
    [b"\x02" * 900_000, b"\x80" * 900_000 + b"\1", b"\x02" * 900_000 + b"\0"],
)
def test_a_schema_that_holds_itself_ends_no_process(payload: bytes) -> None:
    take = avro_reader(json.dumps(LIST))
    assert take(b"\x02\x02\0") == {"next": {"next": {"next": None}}}
    with pytest.raises(BadEvent, match="not match its schema"):
        take(payload)


def doubling(types: int, leaf: str) -> str:
    """A record of two of the type before it, and so on."""
    schema: Any = {"type": "record", "name": "R0", "fields": [{"name": "x", "type": leaf}]}
    for i in range(1, types):
        fields = [{"name": "a", "type": schema}, {"name": "b", "type": f"R{i - 1}"}]
        schema = {"type": "record", "name": f"R{i}", "fields": fields}
    return json.dumps(schema)


@pytest.mark.parametrize("leaf", ["null", "long"])
def test_types_that_name_each_other_cost_neither_time_nor_memory(leaf: str) -> None:
    assert avro_reader(doubling(3, leaf))(b"\0\0\0\0" if leaf == "long" else b"")
    with pytest.raises(ValueError, match="more than 100000 parts"):
        avro_reader(doubling(60, leaf))


def logical(type: str, name: str, **more: Any) -> str:
    return json.dumps({"type": type, "logicalType": name} | more)


@pytest.mark.parametrize(
    ("schema", "payload", "said"),
    [
        (logical("long", "timestamp-millis"), b"\x02", "1970-01-01T00:00:00.001000+00:00"),
        (logical("long", "timestamp-micros"), b"\x02", "1970-01-01T00:00:00.000001+00:00"),
        (logical("long", "local-timestamp-millis"), b"\x02", "1970-01-01T00:00:00.001000"),
        (logical("long", "timestamp-millis"), b"\xfe" + b"\xff" * 8 + b"\1", 2**63 - 1),
        (logical("int", "date"), b"\x02", "1970-01-02"),
        (logical("int", "date"), b"\xfe\xff\xff\xff\x0f", 2**31 - 1),
        (logical("int", "time-millis"), b"\xd0\x0f", "00:00:01"),
        (logical("int", "time-millis"), b"\x01", -1),
        (logical("bytes", "decimal", precision=9, scale=2), b"\x04\xfb\x32", "-12.30"),
        (logical("bytes", "decimal", precision=9, scale=2), b"\x00", "0.00"),
        (logical("bytes", "decimal", precision=9), b"\xc8\x01" + b"a" * 100, "a" * 100),
        (logical("string", "uuid"), b"\x02x", "x"),
        (logical("long", "no-such-type"), b"\x02", 1),
    ],
)
def test_logical_types_are_text_and_never_cost_the_record(
    schema: str, payload: bytes, said: Any
) -> None:
    assert avro_reader(schema)(payload) == said


def test_a_union_of_schemas_that_stand_elsewhere_is_read() -> None:
    union = json.dumps(["com.acme.Host", "com.acme.Log", "Pair"])
    take = avro_reader(union, map(json.dumps, (producers.HOST, LOG, PAIR)))
    assert take(b"\x00\x02x") == {"name": "x"}
    assert take(b"\x04\x02I\x02x") == {"level": "I", "message": "x"}


# -- without a registry --------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["lines", "json", "json:ecs"])
def test_without_a_registry_the_magic_byte_is_recognised(format: str) -> None:
    reader = Registry(Settings(input_format=format))
    frame = reader.frame(wire(17, b"\x0aERROR\x12pool"))
    assert frame is not None
    with pytest.raises(BadEvent) as caught:
        reader.decode(frame)
    for part in ("magic byte", "schema id 17", "XL3M_SCHEMA_REGISTRY", "xl3m-stream[registry]"):
        assert part in str(caught.value)
    assert reader.decode(framed(wire(17, b' {"a": 1}')) or frame) == {"a": 1}


@pytest.mark.parametrize(
    "value",
    [b"", b"x", b"\0", b"\0abcdef", b"\0\0\0\0\0text", b"\0text", b'{"a": 1}', None],
)
def test_text_that_begins_with_a_zero_byte_is_text(value: bytes | None) -> None:
    assert Registry(Settings()).frame(value) is None
    assert Registry(Settings(input_format="msgpack")).frame(wire(17, b"x")) is None


# -- the registry is away ------------------------------------------------------------------------


@pytest.mark.guarantee("Event formats")
async def test_what_is_away_is_tried_again_until_it_is_back(
    schemas: Schemas,
    producer: Producer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    value = producer.avro(json.dumps(PAIR), {"level": "I", "message": "x"})
    schemas.failing, health, seen = 503, Health(), list[str]()

    class Pauses(tuple[float, ...]):
        def __getitem__(self, index: Any) -> Any:
            seen.append(health.retrying.get("registry", ""))  # that of the try before
            if len(seen) == 3:
                schemas.failing = 0
            return 0.0

    monkeypatch.setattr(retry, "BACKOFF_SECONDS", Pauses([0.0]))
    reader = reading(schemas)
    await retry_forever(health, "registry", reader.prepare, [(None, value, ())])
    assert len(seen) == 3 and "503" in seen[1] and health.ok
    assert "registry waits for the schema registry: it answers 503" in caplog.text
    assert await read(reader, value) == {"level": "I", "message": "x"}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "XL3M_SCHEMA_REGISTRY_USER and XL3M_SCHEMA_REGISTRY_PASSWORD"),
        (403, "XL3M_SCHEMA_REGISTRY_PASSWORD .or XL3M_SCHEMA_REGISTRY_PASSWORD_FILE"),
        (404, "none at that URL .404.: see XL3M_SCHEMA_REGISTRY"),
        (429, "it answers 429"),
        (500, "it answers 500"),
    ],
)
async def test_a_reply_that_is_no_schema_is_no_fault_of_the_event(
    schemas: Schemas, status: int, reason: str
) -> None:
    schemas.failing = status
    with pytest.raises(RegistryError, match=reason):
        await reading(schemas).prepare([(None, wire(17, b"x"), ())])


async def test_nobody_at_the_url_is_no_fault_of_the_event() -> None:
    with registries.registry() as schemas:
        pass
    with pytest.raises(RegistryError, match="XL3M_SCHEMA_REGISTRY does not answer"):
        await reading(schemas).prepare([(None, wire(17, b"x"), ())])


async def test_a_schema_is_asked_for_once_and_so_many_are_kept(
    schemas: Schemas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "CACHED_SCHEMAS", 2)
    for id in (1, 2, 3):
        schemas.add(f"s{id}", {"schema": json.dumps("string")}, id=id)
    reader = reading(schemas)
    for id in (1, 2, 1, 3, 1, 2):
        assert await read(reader, wire(id, b"\x02x")) == "x"
    asked = [path.rpartition("/")[2] for path in schemas.requests]
    assert asked == ["1", "2", "3", "2"] and len(reader.readers) == 2


async def test_tls_and_a_password_and_no_secret_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = secured.certificates(tmp_path / "certificates")
    auth = (secured.USER, secured.PASSWORD)
    with registries.registry(made.server, auth) as schemas:
        login: Any = {"schema_registry_user": auth[0], "schema_registry_password": auth[1]}
        ca: Any = {"schema_registry_ca": str(made.ca)}
        schemas.add("s", {"schema": json.dumps("string")}, id=1)
        assert await read(reading(schemas, **login, **ca), wire(1, b"\x02x")) == "x"
        [finding] = [
            f async for f in registry_findings(Settings(schema_registry=schemas.url, **login, **ca))
        ]
        assert str(finding) == "ok: schema registry: answers, knows JSON, PROTOBUF, AVRO"
        with pytest.raises(RegistryError, match="refuses us"):
            await reading(schemas, **ca).prepare([(None, wire(1, b"x"), ())])
        with pytest.raises(RegistryError, match="CERTIFICATE_VERIFY_FAILED"):
            other: Any = {"schema_registry_ca": str(made.stranger)}
            await reading(schemas, **login, **other).prepare([(None, wire(1, b"x"), ())])
        close()
    assert secured.PASSWORD not in caplog.text


async def test_the_doctor_says_what_keeps_schemas_away(
    schemas: Schemas, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(**changes: Any) -> list[str]:
        settings = Settings(**{"schema_registry": schemas.url} | changes)
        return [str(finding) async for finding in registry_findings(settings)]

    schemas.failing = 401
    assert "FAIL: schema registry: it refuses us (401)" in (await found())[0]
    assert [f async for f in registry_findings(Settings())] == []
    unreadable = {"schema_registry": "https://127.0.0.1:1", "schema_registry_ca": "nosuch"}
    assert "XL3M_SCHEMA_REGISTRY_CA cannot be used" in (await found(**unreadable))[0]
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry", None)
    assert (
        "FAIL" in (await found())[0] and "pip install xl3m-stream[registry]" in (await found())[0]
    )


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ({"schema_registry_user": "me"}, "XL3M_SCHEMA_REGISTRY_USER has no effect without"),
        ({"schema_registry_ca": "ca.pem"}, "XL3M_SCHEMA_REGISTRY_CA has no effect without"),
        ({"schema_registry": "registry:8081"}, "must be http:// or https:// and an address"),
        ({"schema_registry": "http://"}, "must be http:// or https:// and an address"),
        ({"schema_registry": "http://me:word@r"}, "must not hold a password"),
        ({"schema_registry": "http://r", "schema_registry_user": "me"}, "go together"),
        ({"schema_registry": "http://r", "schema_registry_password": "p"}, "go together"),
        ({"schema_registry": "http://r", "schema_registry_ca": "c"}, "needs an https://"),
        ({"schema_registry": "http://r", "input_format": "msgpack"}, "not msgpack"),
    ],
)
def test_settings_of_a_registry_go_together(given_: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        Settings.from_env({}, **given_)
    assert "word" not in str(caught.value).replace("password", "")


# -- any bytes -----------------------------------------------------------------------------------


READERS = [
    avro_reader(json.dumps(schema), [json.dumps(producers.HOST)]) for schema in (LOG, PAIR, LIST)
]


@pytest.mark.guarantee("Event formats")
@given(st.integers(0, 2), st.binary(max_size=60))
@example(2, b"\x02" * 50)
def test_any_bytes_are_read_or_refused_with_a_reason(which: int, payload: bytes) -> None:
    try:
        json.dumps(READERS[which](payload))
    except BadEvent as error:
        assert str(error)
