"""Registry: decodes values in the wire format of Confluent's schema registry to JSON-like data.

Schemas are fetched on a thread before a batch is decoded, and cached. A registry that is down or
denies access raises RegistryError, and the fetch is retried. An unknown schema is a bad event.
"""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from stream_app.errors import BadEvent, RegistryError, SettingsError
from stream_app.formats.framing import LARGEST_ID, Framed, SchemaRef, framed, is_likely, unframed
from stream_app.formats.text import encodable, json_of
from stream_app.settings import Settings
from stream_app.settings.variables import variable, variable_or_file

CACHED_SCHEMAS = 4096
"""More than the keys and values of one batch can name."""
FETCH_SECONDS = 10.0
UNKNOWN_SECONDS = 30.0
"""Time after which an unknown schema is requested again: it may be registered late."""
# The registry's own codes: no such subject, version, schema.
NOT_FOUND = (40401, 40402, 40403)

Headers = Iterable[tuple[Any, bytes | None]]
Reader = Callable[[Framed], Any]


class Registry:
    """One per worker; without a URL it only recognises framed values. is_asked: whether there is a
    URL; is_on: whether values may be framed at all; has_keys: whether keys may be; readers,
    unknown: the schemas that were fetched, and those that do not exist. Raises SettingsError if a
    package it needs is not installed."""

    def __init__(self, settings: Settings) -> None:
        self.client: Any = create_client(settings) if settings.schema_registry else None
        self.is_asked = self.client is not None
        self.is_on = settings.input_format != "msgpack"
        self.has_keys = settings.key_format == "utf8"
        self.encoding = settings.encoding
        self.readers: OrderedDict[SchemaRef, Reader] = OrderedDict()
        self.unknown: OrderedDict[SchemaRef, tuple[float, str]] = OrderedDict()
        self.clock: Callable[[], float] = time.monotonic

    async def prepare(self, records: Iterable[tuple[bytes | None, bytes | None, Headers]]) -> None:
        """Fetch the schemas of keys and values that are not cached. Raises RegistryError."""
        if self.client is None:
            return
        for ref in self._named(records):
            if ref not in self.readers and not self._is_unknown(ref):
                await self._fetch(ref)

    async def answers(self) -> str:
        """A line for `xl3m doctor`: the schema types it knows. Raises RegistryError."""
        kinds = await asyncio.to_thread(self._ask, 0, self.client.get_schema_types)
        return f"answers, knows {', '.join(map(str, kinds))}"

    def close(self) -> None:
        """Close the connections."""
        if self.client is not None:
            self.client.close()

    def _named(
        self, records: Iterable[tuple[bytes | None, bytes | None, Headers]]
    ) -> dict[SchemaRef, None]:
        """The schemas, each once and in order."""
        frames = [
            self.frame(data, headers, what)
            for key, value, headers in records
            for what, data in (("key", key if self.has_keys else None), ("value", value))
        ]
        return dict.fromkeys(frame.schema for frame in frames if frame is not None)

    def frame(
        self, value: bytes | None, headers: Headers = (), what: str = "value"
    ) -> Framed | None:
        """The parts of a value that names a schema; None for any other."""
        if not self.is_on:
            return None
        frame = framed(value, headers, what)
        return frame if self.is_asked or is_likely(frame) else None

    def decode(self, frame: Framed, what: str = "value") -> Any:
        """The decoded value; its schema was fetched by `prepare`. Raises BadEvent."""
        if self.client is None:
            return json_of(unframed(frame, what), self.encoding)
        reader = self.readers.get(frame.schema)
        if reader is None:
            _, reason = self.unknown.get(frame.schema, (0.0, "its schema was not fetched"))
            raise BadEvent(f"the {what} cannot be decoded: {reason}")
        self.readers.move_to_end(frame.schema)
        try:
            return reader(frame)
        except BadEvent as error:
            raise BadEvent(f"the {what}, of schema id {frame.schema}: {error}") from None

    def text(self, frame: Framed) -> str:
        """The value of a schema for text. Raises BadEvent, also for a record."""
        value = self.decode(frame)
        if isinstance(value, str):
            return encodable(value, "the value", self.encoding)
        raise BadEvent(
            f"the value, of schema id {frame.schema}, is a record, not a text: set "
            f"{variable('input_format')}=json, and which of its fields is the text"
        )

    def name(self, key: bytes | None, headers: Headers = ()) -> str | None:
        """The stream's name in a key that names a schema; None for any other key. If keys have
        another format, a zero byte at the start means something else."""
        if not key or not self.has_keys or not (key[0] == 0 or headers):
            return None
        frame = self.frame(key, headers, "key")
        return text_of_key(self.decode(frame, "key")) if frame else None

    async def _fetch(self, ref: SchemaRef) -> None:
        try:
            reader = await asyncio.to_thread(self._reader, ref)
        except BadEvent as error:
            self._keep(self.unknown, ref, (self.clock() + UNKNOWN_SECONDS, str(error)))
            return
        self.unknown.pop(ref, None)
        self._keep(self.readers, ref, reader)

    def _keep(self, where: OrderedDict[SchemaRef, Any], ref: SchemaRef, what: Any) -> None:
        """Cache a schema, and drop the oldest beyond the limit."""
        where[ref] = what
        where.move_to_end(ref)
        if len(where) > CACHED_SCHEMAS:
            where.popitem(last=False)
            self.client.clear_caches()

    def _is_unknown(self, ref: SchemaRef) -> bool:
        return ref in self.unknown and self.clock() < self.unknown[ref][0]

    def _reader(self, ref: SchemaRef) -> Reader:
        """Fetch a schema and make its reader; runs on a thread. Raises BadEvent if the schema does
        not exist or cannot be used, and RegistryError."""
        if isinstance(ref, int) and not 0 < ref <= LARGEST_ID:
            raise BadEvent(f"schema id {ref} is none: ids go from 1 to {LARGEST_ID}")
        schema = self._ask(ref, self._get, ref)
        try:
            return self._reader_of(ref, schema)
        except ValueError as error:
            raise BadEvent(f"schema id {ref} cannot be used: {error}") from error

    def _reader_of(self, ref: SchemaRef, schema: Any) -> Reader:
        kind = (schema.schema_type or "AVRO").upper()
        if kind == "JSON":
            return lambda frame: json_of(frame.payload, self.encoding)
        if kind == "AVRO":
            from stream_app.formats.avro import avro_reader

            read = avro_reader(schema.schema_str, self._references(ref, schema).values())
            return lambda frame: read(frame.payload)
        if kind == "PROTOBUF":
            from stream_app.formats.protobuf import protobuf_reader

            schema = self._ask(ref, self._get, ref, "serialized")
            reader = protobuf_reader(schema.schema_str, self._references(ref, schema, "serialized"))
            return lambda frame: reader(frame.payload, frame.indexes)
        raise ValueError(f"it is {kind}, and not AVRO, PROTOBUF or JSON")

    def _get(self, ref: SchemaRef, form: str | None = None) -> Any:
        if form is not None:  # the client caches a schema by its id only, in any form
            self.client.clear_caches()
        if isinstance(ref, int):
            return self.client.get_schema(ref, fmt=form)
        return self.client.get_schema_by_guid(ref, fmt=form)

    def _references(self, ref: SchemaRef, schema: Any, form: str | None = None) -> dict[str, str]:
        """The schemas that a schema refers to, directly or not, by name; each before those that
        refer to it."""
        found: dict[str, str] = {}
        for each in schema.references or ():
            if each.name not in found and not _is_built_in(each.name):
                version = self._ask(
                    ref, self.client.get_version, each.subject, each.version, True, form
                )
                found = self._references(ref, version.schema, form) | found
                found[each.name] = version.schema.schema_str
        return found

    def _ask(self, ref: SchemaRef, call: Callable[..., Any], *args: Any) -> Any:
        """Call the client. Raises RegistryError if no registry replies, and BadEvent if the schema
        does not exist."""
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            return call(*args)
        except SchemaRegistryError as error:
            if error.error_code in NOT_FOUND or self._knows_no_guids(ref, error):
                raise BadEvent(f"schema id {ref} is not in the registry") from None
            raise RegistryError(refusal(error.http_status_code, error.error_code)) from None
        except Exception as error:  # any error of the HTTP client
            raise RegistryError(
                f"{variable('schema_registry')} does not answer ({type(error).__name__}: {error})"
            ) from error

    def _knows_no_guids(self, ref: SchemaRef, error: Any) -> bool:
        """Whether the registry is old or of another vendor and does not support GUIDs. Any producer
        can send a GUID in a header, so an unsupported one must not block ingest."""
        if isinstance(ref, int) or error.http_status_code != 404:
            return False
        self._ask(0, self.client.get_schema_types)  # raises RegistryError without a registry
        return True


def _is_built_in(name: str) -> bool:
    """Whether a reference is to a type of the Protobuf library."""
    return name.startswith(("google/protobuf/", "google/type/", "confluent/"))


def refusal(status: int, code: int) -> str:
    """Advice for an error reply."""
    if status in (401, 403):
        user = variable("schema_registry_user")
        password = variable_or_file("schema_registry_password")
        return f"it refuses us ({status}): set {user} and {password}, or give the user rights"
    if status == 404:
        return f"there is none at that URL (404): see {variable('schema_registry')}"
    return f"it answers {status} (code {code})"


def create_client(settings: Settings) -> Any:
    """The registry's client, without retries: its callers retry. Raises SettingsError if it cannot
    be created."""
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient

        from stream_app.formats import avro, protobuf  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"{variable('schema_registry')} needs `pip install xl3m-stream[registry]` ({error})"
        ) from error
    options: dict[str, Any] = {
        "url": settings.schema_registry,
        "timeout": FETCH_SECONDS,
        "max.retries": 0,
    }
    if settings.schema_registry_ca:
        options["ssl.ca.location"] = settings.schema_registry_ca
    if settings.schema_registry_user:
        password = settings.schema_registry_password.get_secret_value()
        options["basic.auth.user.info"] = f"{settings.schema_registry_user}:{password}"
    try:
        return SchemaRegistryClient(options)
    except OSError as error:
        raise SettingsError(
            f"{variable('schema_registry_ca')} cannot be used ({error.strerror or error})"
        ) from None


def text_of_key(value: Any) -> str:
    """The stream's name in a decoded key: a text, the only field of a map, or the key as JSON."""
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
