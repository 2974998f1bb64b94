"""Apache Kafka from its home, the folder of its official distribution: one node on loopback.

Knows the layout of that folder, a node's settings, and how to ask a port whether a Kafka serves
there. Where the home lies is the caller's to say.
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

# Metadata request, version 4: the brokers, no topics, create nothing.
_METADATA = struct.pack(">hhih4si?", 3, 4, 1, 4, b"xl3m", 0, False)
_HEADER = struct.Struct(">iiii")  # the answer's size, correlation id, throttle time, brokers


@contextmanager
def node(
    home: Path,
    folder: Path,
    *,
    partitions: int,
    port: int,
    doors: Mapping[str, int] | None = None,
    more: Mapping[str, object] | None = None,
    users: Sequence[str] = (),
) -> Iterator[None]:
    """A broker and controller in one, its data in the folder, taken up again if it is there.

    doors: further listeners, each security protocol with its port; more: settings of these;
    users: of SCRAM, as `kafka-storage.sh --add-scram` wants them.
    """
    _check(home)
    folder = folder.absolute()
    properties = _write_properties(folder, port, partitions, doors or {}, more or {})
    log = folder / "kafka.log"
    if not (folder / "data" / "meta.properties").exists():
        storage = home / "bin" / "kafka-storage.sh"
        identity = ["-t", _cluster_id(), "--standalone"]
        identity += [word for user in users for word in ("--add-scram", user)]
        run([str(storage), "format", *identity, "-c", str(properties)], log)
    # `env` hands the script its variables without this process reading or changing its own.
    variables = ["env", f"LOG_DIR={folder / 'logs'}", f"KAFKA_HEAP_OPTS={_HEAP}"]
    command = [*variables, str(home / "bin" / "kafka-server-start.sh"), str(properties)]
    with running(command, log, lambda: is_broker_up("127.0.0.1", port)):
        yield


def is_broker_up(host: str, port: int) -> bool:
    """Whether a broker there tells of at least one live broker: then it takes clients."""
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
            f"{home} is no Kafka home: point KAFKA_HOME to an unpacked Apache Kafka distribution,"
            " the folder that holds bin and libs"
        )
    found = _java_version()
    if found < _JAVA:
        which = f"Java {found} is on the PATH" if found else "no Java is on the PATH"
        raise EmbeddedError(f"Kafka needs Java {_JAVA} or newer, {which}: install a newer one")


def _java_version() -> int:
    """The major version of the PATH's Java, 0 for none."""
    if not (java := shutil.which("java")):
        return 0
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', shown.stderr)
    return int(version[1]) if version else 0


def _write_properties(
    folder: Path, port: int, partitions: int, doors: Mapping[str, int], more: Mapping[str, object]
) -> Path:
    listeners = {"PLAINTEXT": port} | dict(doors)
    node_url = ",".join(f"{name}://127.0.0.1:{at}" for name, at in listeners.items())
    protocols = ",".join(f"{name}:{name}" for name in listeners)
    controller = f"127.0.0.1:{free_port(besides=port)}"
    settings = {
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
    } | dict(more)
    path = folder / "server.properties"
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return path


def _cluster_id() -> str:
    # Kafka's form of a UUID; the leading zero byte keeps it from starting with a dash.
    return base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).rstrip(b"=").decode()
