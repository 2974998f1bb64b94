"""SearchProcess: a process of its own for searching logs, at a lower priority than the worker.

It takes no time from the worker's event loop, and loads no model.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

NICE = 10


class SearchProcess:
    """One process, started at the first call and again when it died. It ends with its parent."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result. A call that has begun cannot be interrupted: if this is cancelled, the
        process ends it, and its result is dropped. Raises BrokenProcessPool if the process dies,
        and what the call raises."""
        try:
            return await asyncio.wrap_future(self._submit(call, *args, **kwargs))
        except BrokenProcessPool:
            self._discard()
            raise

    def _submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Have the process make the call; it is started here if it does not run."""
        with _safe_path():
            self._pool = self._pool or ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn"), initializer=_initialize
            )
            return self._pool.submit(call, *args, **kwargs)

    def _discard(self) -> None:
        """Let the next call start a new process."""
        if self._pool:
            self._pool.shutdown(wait=False)
        self._pool = None


@contextmanager
def _safe_path() -> Iterator[None]:
    """Python processes started within look for no module in the working folder, as with
    `python -P`. multiprocessing passes our own search path on, but only after they have begun."""
    if sys.flags.safe_path:  # then multiprocessing gives them -P
        yield
        return
    os.putenv("PYTHONSAFEPATH", "1")
    try:
        yield
    finally:
        os.unsetenv("PYTHONSAFEPATH")


def _initialize() -> None:
    """In the process: lower its priority, leave Ctrl-C to the worker, and end with the worker."""
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
