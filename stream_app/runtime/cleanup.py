"""Cleanup: what a command made for itself alone is gone when it ends, however it ends.

SIGTERM and SIGHUP unwind the stack as an error would, so that `with` blocks end what they began; a
folder goes even when the process is killed, since another process waits for that. Knows signals
and folders; not what is in them.
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
"""A shell says so, and the signal's number, of a process that a signal ended."""
ENDING = (signal.SIGTERM, signal.SIGHUP)
UNWIND_SECONDS = 30.0
"""Services that are stopped meanwhile take a few."""

# Reads until whoever holds the other end of its standard input is gone. Services that are ending as
# well may still write into the folder: then it is not empty, and is tried again.
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
    """In the block SIGTERM and SIGHUP end the process by a SystemExit; once one came the others are
    ignored, so that cleaning up is not cut short. A SIGHUP that was ignored before, as by nohup,
    stays ignored."""

    def unwind(number: int, frame: Any) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        # A library that swallows the SystemExit, as some do while they load, keeps nobody waiting.
        end = threading.Timer(UNWIND_SECONDS, os._exit, [SIGNALLED + number])
        end.daemon = True
        end.start()
        sys.exit(SIGNALLED + number)

    before = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """A folder that is gone after the block, and after a SIGKILL as well."""
    folder = tempfile.mkdtemp(prefix=prefix)
    command = ["/bin/sh", "-c", _REMOVE_AT_END, "sh", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield Path(folder)  # leaving the `with` closes its input, and waits for it
