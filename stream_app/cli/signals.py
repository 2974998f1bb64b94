"""Signals: Ctrl-C, SIGTERM and SIGHUP end a feed alike, so that it can finish what it began.

Knows the event loop; not what is fed.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine
from typing import Any, NamedTuple

SIGNALLED = 128
"""A shell says so, and the signal's number, of a process that a signal ended."""
# By then the position file is saved and the summary printed; a client of Kafka that waits for a
# broker which does not answer keeps nobody waiting.
END_SECONDS = 10.0


class Outcome(NamedTuple):
    """result: of the work; code: the exit code, if a signal ended it, else 0."""

    result: bool
    code: int


async def run_until_signalled(work: Coroutine[Any, Any, bool]) -> Outcome:
    """Do the work; each signal cancels it. One that is ignored, as SIGHUP under nohup, stays so."""
    loop, told = asyncio.get_running_loop(), list[int]()
    task = asyncio.current_task()
    assert task is not None

    def end(number: int) -> None:
        timer = threading.Timer(END_SECONDS, os._exit, [SIGNALLED + number])
        timer.daemon = True
        timer.start()
        told.append(number)
        task.cancel()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [each for each in signals if signal.getsignal(each) != signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, end, number)
    try:
        return Outcome(await work, 0)
    except asyncio.CancelledError:
        if not told:
            raise
        return Outcome(False, SIGNALLED + told[0])
