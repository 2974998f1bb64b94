"""Child processes: ready inside a `with` block, stopped after it.

Failures are raised as `EmbeddedError`, which ends with the last lines of the child's log.
"""

import ctypes
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stream_app.errors import EmbeddedError

_READY_S = 60.0  # a JVM on a busy laptop
_STOP_S = 15.0  # after that the child is killed
_POLL_S = 0.02
_PORTS = range(20_000, 32_000)  # below the ports of outgoing connections
_TAIL_LINES = 5


@contextmanager
def running(command: list[str], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """Run the command from when it is ready to the end of the block; its output goes to the log.

    On Linux it also ends with the thread that entered the block, however that thread ends.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # no SIGINT of the terminal: workers stop before their services
            preexec_fn=die_with_parent,
        )
    try:
        _wait_until(ready, process, log)
        yield
    finally:
        _stop(process)


def run(command: list[str], log: Path) -> None:
    """Run the command to its end; its output goes to the log."""
    with log.open("ab") as output:
        code = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    if code:
        raise EmbeddedError(_why(f"could not be prepared (code {code})", log))


def free_port(wanted: int | None = None, *, besides: int | None = None) -> int:
    """A free port on loopback, or the wanted one if it is free."""
    ports = [wanted] if wanted else random.sample(_PORTS, 100)
    for port in ports:
        if port != besides and _is_free(port):
            return port
    raise EmbeddedError(f"port {wanted or _PORTS} is in use on 127.0.0.1: choose another")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections of an earlier service on this port may still be in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while not ready():
        if process.poll() is not None:
            raise EmbeddedError(_why(f"ended with code {process.returncode}", log))
        if time.monotonic() > deadline:
            raise EmbeddedError(_why(f"was not ready after {_READY_S:.0f} s", log))
        time.sleep(_POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_S)
    finally:  # also when a second Ctrl-C interrupts the wait
        process.kill()
        process.wait()


def _why(what: str, log: Path) -> str:
    tail = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    text = " | ".join(line.strip() for line in tail if line.strip())
    return f"{log.stem} {what}; the end of {log}: {text or '(empty)'}"


# Only Linux can end a child with its parent. Looked up here, because nothing may be loaded between
# fork and exec.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Called in a child between fork and exec: it receives SIGTERM when its parent ends."""
    if _PRCTL:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
