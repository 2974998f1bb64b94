"""A Redis and a Kafka that can be killed and restarted on the same port and data."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

from stream_app.embedded import services
from stream_app.embedded.process import free_port
from stream_app.embedded.services import Service


class Restartable:
    """A service with a fixed port and folder. mark: a text that only its process's command line
    has."""

    def __init__(
        self, folder: Path, start: Callable[[], AbstractContextManager[Service]], mark: str
    ) -> None:
        self.folder, self.start_it, self.mark = folder, start, mark
        self.life = ExitStack()

    def start(self) -> Service:
        """Start, and wait until it is ready."""
        return self.life.enter_context(self.start_it())

    def kill(self) -> None:
        """Kill the process; its memory is lost."""
        os.kill(self.pid(), signal.SIGKILL)
        self.life.close()

    def pid(self) -> int:
        """The process id, of a child of this process that has the mark."""
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                command = (path / "cmdline").read_bytes().decode(errors="replace")
                if parent == os.getpid() and self.mark in command:
                    return int(path.name)
        raise ProcessLookupError(f"no process with {self.mark!r}")


def redis(folder: Path) -> Restartable:
    """A Redis with an append-only file."""
    port = free_port()
    return Restartable(
        folder, lambda: services.redis(folder, appendonly=True, port=port), f"127.0.0.1:{port}"
    )


def written(folder: Path) -> tuple[Path, int]:
    """The append-only file that is written now, and its size."""
    path = max(folder.rglob("*.incr.aof"), key=lambda file: file.stat().st_mtime_ns)
    return path, path.stat().st_size


def kafka(folder: Path, home: Path) -> Restartable:
    """A one-node Kafka."""
    port = free_port()
    return Restartable(
        folder,
        lambda: services.kafka(folder, kafka_home=home, port=port),
        str(folder.absolute() / "server.properties"),
    )
