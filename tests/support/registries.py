"""A schema registry for tests, in a thread: the paths of Confluent's that a reader needs.

The real serializers register their schemas here. It can be set to answer with errors.
"""

import asyncio
import base64
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from stream_app.embedded.process import free_port

HOST = "127.0.0.1"


@dataclass
class Schemas:
    """Schemas by id, and by subject and version. failing: the status of all responses; auth:
    required user and password; guids: whether schemas can be read by GUID."""

    url: str
    auth: tuple[str, str] | None = None
    failing: int = 0
    by_id: dict[int, dict[str, Any]] = field(default_factory=dict)
    by_subject: dict[str, list[int]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    serialized: bool = True
    guids: bool = True
    next_id: int = 1

    def add(self, subject: str, schema: dict[str, Any], id: int = 0) -> int:
        """Register a schema, and return its id; `id` sets it."""
        known = [i for i, each in self.by_id.items() if _same(each, schema)]
        if known and not id:
            number = known[0]
        else:
            number = id or self.next_id
            self.next_id = max(self.next_id, number + 1)
            self.by_id[number] = schema
        versions = self.by_subject.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number

    def guid(self, id: int) -> str:
        """The GUID of a schema."""
        return str(uuid.UUID(int=id))


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in ("schema", "schemaType", "references"))


class _RegistryApp:
    """The registry's HTTP API."""

    def __init__(self, schemas: Schemas) -> None:
        self.schemas = schemas

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded])
        app.router.add_get("/schemas/types", self._types)
        app.router.add_get("/schemas/ids/{id}", self._by_id)
        app.router.add_get("/schemas/guids/{guid}", self._by_guid)
        app.router.add_post("/subjects/{subject}/versions", self._register)
        app.router.add_post("/subjects/{subject}", self._register)
        app.router.add_get("/subjects/{subject}/versions/{version}", self._version)
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        schemas = self.schemas
        schemas.requests.append(request.path_qs)
        if schemas.failing:
            return web.json_response({"error_code": 50003, "message": "?"}, status=schemas.failing)
        if schemas.auth:
            word = base64.b64encode(":".join(schemas.auth).encode()).decode()
            if request.headers.get("Authorization") != f"Basic {word}":
                return web.json_response({"error_code": 401, "message": "no"}, status=401)
        response: web.StreamResponse = await handler(request)
        return response

    async def _types(self, request: web.Request) -> web.Response:
        return web.json_response(["JSON", "PROTOBUF", "AVRO"])

    async def _by_id(self, request: web.Request) -> web.Response:
        return self._schema(request, int(request.match_info["id"]))

    async def _by_guid(self, request: web.Request) -> web.Response:
        if not self.schemas.guids:
            return web.json_response({"error_code": 404, "message": "HTTP 404"}, status=404)
        return self._schema(request, uuid.UUID(request.match_info["guid"]).int)

    async def _version(self, request: web.Request) -> web.Response:
        subject, version = request.match_info["subject"], request.match_info["version"]
        ids = self.schemas.by_subject.get(subject, [])
        place = len(ids) if version == "latest" else int(version)
        if not 1 <= place <= len(ids):
            return web.json_response({"error_code": 40402, "message": "no version"}, status=404)
        more = {"subject": subject, "version": place, "id": ids[place - 1]}
        return self._schema(request, ids[place - 1], more)

    async def _register(self, request: web.Request) -> web.Response:
        subject = request.match_info["subject"]
        id = self.schemas.add(subject, await request.json())
        version = self.schemas.by_subject[subject].index(id) + 1
        guid = self.schemas.guid(id)
        found = self.schemas.by_id[id]
        named = {"subject": subject, "version": version, "id": id, "guid": guid}
        return web.json_response(named | {"schema": found["schema"]})

    def _schema(
        self, request: web.Request, id: int, more: dict[str, Any] | None = None
    ) -> web.Response:
        if id not in self.schemas.by_id:
            error = {"error_code": 40403, "message": f"Schema {id} not found"}
            return web.json_response(error, status=404)
        schema = self.schemas.by_id[id] | (more or {}) | {"guid": self.schemas.guid(id)}
        wants = request.query.get("format") == "serialized"
        if schema.get("schemaType") == "PROTOBUF" and not (wants and self.schemas.serialized):
            # Like the registry, which returns the source text unless format=serialized is given.
            schema["schema"] = 'syntax = "proto3"; // as text'
        return web.json_response(schema)


@contextmanager
def registry(
    certificate: Path | None = None, auth: tuple[str, str] | None = None, port: int = 0
) -> Iterator[Schemas]:
    """A registry that runs within the block."""
    port = port or free_port()
    scheme = "https" if certificate else "http"
    schemas = Schemas(f"{scheme}://{HOST}:{port}", auth)
    with serving(schemas, certificate):
        yield schemas


@contextmanager
def serving(schemas: Schemas, certificate: Path | None = None) -> Iterator[None]:
    """Serve the schemas at their URL within the block; before and after it is unreachable."""
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    port = int(schemas.url.rpartition(":")[2])
    loop, ready, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(_RegistryApp(schemas).app(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, HOST, port, ssl_context=context, reuse_address=True)
        await site.start()
        ready.set()
        await done.wait()
        await runner.cleanup()
        await asyncio.sleep(0)  # aborted connections close in the next iteration of the loop

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(20)
        loop.close()
