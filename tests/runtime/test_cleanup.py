"""A command leaves no temporary files and no processes, for each way to end it.

Real processes, ended by real signals: while they start, while the model loads, and while they work.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

WAIT_SECONDS = 60.0
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a killed parent's children end")


def until(condition: Callable[[], bool]) -> None:
    """Wait for it to become true."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def living() -> dict[int, int]:
    """The parent of each running process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process ended meanwhile
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    return parents


def descendants(process: int) -> set[int]:
    """All processes that it started, and those that they started."""
    parents, found, new = living(), set[int](), {process}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= new
    return found


class Command:
    """A command in its own session, with its temporary files in one folder."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder / "tmp"
        self.folder.mkdir()
        self.output = folder / "output"
        env = {name: value for name, value in os.environ.items() if name != "KAFKA_HOME"}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream_app", *words],
                env=env | {"TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1"},
                stdout=output, stderr=output, start_new_session=True,
                # These tests may themselves run under nohup.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )  # fmt: skip
        self.children: set[int] = set()

    def says(self, words: str) -> bool:
        """Whether it has printed the words."""
        assert self.process.poll() is None, self.output.read_text()
        return words in self.output.read_text()

    def end(self, how: signal.Signals) -> int:
        """Send the signal; the exit code once it and all processes that it started have ended."""
        self.children = descendants(self.process.pid)
        self.process.send_signal(how)
        code = self.process.wait(WAIT_SECONDS)
        until(lambda: not self.children & living().keys())
        return code

    @property
    def remaining(self) -> list[str]:
        """Its temporary folders that still exist."""
        return [path.name for path in self.folder.glob("xl3m-*")]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts commands, and kills them if a test fails."""
    commands: list[Command] = []

    def start(*words: str) -> Command:
        commands.append(Command(tmp_path, *words))
        return commands[-1]

    yield start
    for command in commands:
        command.process.kill()
        command.process.wait()


@pytest.mark.guarantee("Shutdown")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize(
    ("words", "moment"),
    [
        (("worker", "--embedded"), "XL3M_REDIS="),  # before the model is loaded
        (("demo",), "loading the model"),
    ],
)
def test_a_command_leaves_no_files_and_no_processes(
    started: Callable[..., Command], words: tuple[str, ...], moment: str, how: signal.Signals
) -> None:
    command = started(*words)
    until(lambda: command.says(moment))
    assert command.remaining
    code = command.end(how)
    assert code == (-how if how == signal.SIGKILL else 128 + how)
    assert command.children, "a Redis, and the process that removes the folder"
    until(lambda: not command.remaining)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_at_work_ends_well_when_its_terminal_is_closed(
    started: Callable[..., Command], how: signal.Signals
) -> None:
    command = started("worker", "--embedded")
    until(lambda: command.says("ready: reads"))
    assert command.end(how) == 0
    assert not command.remaining


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    code = """
import os, signal
from stream_app.runtime.cleanup import unwinding_on_signals
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with unwinding_on_signals():
    os.kill(os.getpid(), signal.SIGHUP)
    print("continues", flush=True)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # a second one does not cut this short
        print("cleaned up")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["continues", "cleaned up"]
    assert done.returncode == 128 + signal.SIGTERM


def test_a_library_that_swallows_the_exit_does_not_keep_the_process_alive() -> None:
    code = """
import os, signal, threading
from stream_app.runtime import cleanup
cleanup.UNWIND_SECONDS = 0.1
with cleanup.unwinding_on_signals():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        pass
    print("continues", flush=True)
    threading.Event().wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_SECONDS
    )
    assert (done.stdout, done.returncode) == ("continues\n", 128 + signal.SIGTERM)
