"""Apache Kafka on loopback: one KRaft node, started from an unpacked official distribution.

`node` runs it for the length of a `with` block; `is_broker_up` checks a port for any broker.
"""

import base64
import re
import shutil
import socket
import struct
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from stream_app.embedded.process import free_port, run, running
from stream_app.errors import EmbeddedError

_JAVA = 17
_HEAP = "-Xmx512m"

# Metadata request, version 4: asks for the brokers and no topics, creates none.
_METADATA = struct.pack(">hhih4si?", 3, 4, 1, 4, b"xl3m", 0, False)
_HEADER = struct.Struct(">iiii")  # the response's size, correlation id, throttle time, brokers


@contextmanager
def node(
    home: Path,
    folder: Path,
    *,
    partitions: int,
    port: int,
    listeners: Mapping[str, int] | None = None,
    properties: Mapping[str, object] | None = None,
    users: Sequence[str] = (),
) -> Iterator[None]:
    """A broker that is its own controller. Its data is in the folder; existing data is reused.

    home: of the distribution; listeners: besides PLAINTEXT, security protocol -> port; properties:
    more lines of server.properties; users: for SCRAM, in the form of `kafka-storage.sh
    --add-scram`. Raises EmbeddedError if it cannot be started.
    """
    _check(home)
    folder = folder.absolute()
    config = _write_properties(folder, port, partitions, listeners or {}, properties or {})
    log = folder / "kafka.log"
    if not (folder / "data" / "meta.properties").exists():
        storage = home / "bin" / "kafka-storage.sh"
        identity = ["-t", _cluster_id(), "--standalone"]
        identity += [word for user in users for word in ("--add-scram", user)]
        run([str(storage), "format", *identity, "-c", str(config)], log)
    # `env` sets the variables of the script; those of this process stay untouched.
    variables = ["env", f"LOG_DIR={folder / 'logs'}", f"KAFKA_HEAP_OPTS={_HEAP}"]
    command = [*variables, str(home / "bin" / "kafka-server-start.sh"), str(config)]
    with running(command, log, lambda: is_broker_up("127.0.0.1", port)):
        yield


def is_broker_up(host: str, port: int) -> bool:
    """Whether a broker answers there and reports a live broker, so that clients can connect."""
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(_METADATA)) + _METADATA)
            header = connection.recv(_HEADER.size, socket.MSG_WAITALL)
    except OSError:
        return False
    if len(header) < _HEADER.size:
        return False
    _, correlation, _, brokers = _HEADER.unpack(header)
    return bool(correlation == 1 and brokers > 0)


def _check(home: Path) -> None:
    if not (home / "bin" / "kafka-server-start.sh").is_file():
        raise EmbeddedError(
            f"{home} is not a Kafka distribution: set KAFKA_HOME to the folder of an unpacked one,"
            " which contains bin and libs"
        )
    version = _java_version()
    if version < _JAVA:
        found = f"Java {version} is on the PATH" if version else "no Java is on the PATH"
        raise EmbeddedError(f"Kafka needs Java {_JAVA} or newer, {found}: install a newer one")


def _java_version() -> int:
    """The major version of the Java on the PATH; 0 if there is none."""
    if not (java := shutil.which("java")):
        return 0
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', shown.stderr)
    return int(version[1]) if version else 0


def _write_properties(
    folder: Path,
    port: int,
    partitions: int,
    listeners: Mapping[str, int],
    properties: Mapping[str, object],
) -> Path:
    ports = {"PLAINTEXT": port} | dict(listeners)
    node_url = ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
    protocols = ",".join(f"{name}:{name}" for name in ports)
    controller = f"127.0.0.1:{free_port(besides=port)}"
    lines = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.bootstrap.servers": controller,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{node_url},CONTROLLER://{controller}",
        "advertised.listeners": node_url,
        "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,{protocols}",
        "log.dirs": folder / "data",
        "auto.create.topics.enable": "true",
        "num.partitions": partitions,
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
    } | dict(properties)
    path = folder / "server.properties"
    path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    return path


def _cluster_id() -> str:
    # Kafka's encoding of a UUID. The leading zero byte prevents a leading dash.
    return base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).rstrip(b"=").decode()
