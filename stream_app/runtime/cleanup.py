"""Cleanup: a command removes its temporary files however it ends.

SIGTERM and SIGHUP unwind the stack like an error, so that `with` blocks stop what they started. A
temporary directory is removed even if the process is killed: another process waits for that.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIGNALLED = 128
"""A process that a signal ended exits with this plus the signal's number, as shells report it."""
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
UNWIND_SECONDS = 30.0
"""Stopping embedded services takes a few seconds."""

# Reads until the other end of its standard input is closed. Services that are ending at the same
# time may still write into the directory: then removing it fails and is tried again.
_REMOVE_AT_END = """
trap '' HUP INT TERM
cat > /dev/null
for try in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf -- "$1" 2> /dev/null && [ ! -e "$1" ] && exit 0
  sleep 1
done
"""


@contextmanager
def unwinding_on_signals() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP raise SystemExit. After the first one further signals are
    ignored, so that they do not interrupt the cleanup. A SIGHUP that was ignored before, as under
    nohup, stays ignored."""

    def unwind(number: int, frame: Any) -> None:
        for end_signal in END_SIGNALS:
            signal.signal(end_signal, signal.SIG_IGN)
        # Some libraries swallow a SystemExit while they load: then the process ends after a while.
        timer = threading.Timer(UNWIND_SECONDS, os._exit, [SIGNALLED + number])
        timer.daemon = True
        timer.start()
        sys.exit(SIGNALLED + number)

    handlers = {number: signal.getsignal(number) for number in END_SIGNALS}
    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """A directory that is removed after the block, and after a SIGKILL as well."""
    folder = tempfile.mkdtemp(prefix=prefix)
    command = ["/bin/sh", "-c", _REMOVE_AT_END, "sh", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield Path(folder)  # leaving the `with` closes the process' input and waits for it
