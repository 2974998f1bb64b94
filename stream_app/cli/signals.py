"""Signals: SIGINT, SIGTERM and SIGHUP end `xl3m feed` in order, so that it can save its state."""

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine
from typing import Any, NamedTuple

from stream_app.runtime.cleanup import SIGNALLED

# After a signal the process has this long to save its checkpoints and print its summary; a Kafka
# client that waits for an unresponsive broker cannot hold it longer.
END_SECONDS = 10.0


class Outcome(NamedTuple):
    """result: of the work; code: the exit code if a signal ended it, else 0."""

    result: bool
    code: int


async def run_until_signalled(work: Coroutine[Any, Any, bool]) -> Outcome:
    """Run the work; a signal cancels it. Ignored signals (SIGHUP under nohup) stay ignored."""
    loop, received = asyncio.get_running_loop(), list[int]()
    task = asyncio.current_task()
    assert task is not None

    def end(number: int) -> None:
        timer = threading.Timer(END_SECONDS, os._exit, [SIGNALLED + number])
        timer.daemon = True
        timer.start()
        received.append(number)
        task.cancel()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, end, number)
    try:
        return Outcome(await work, 0)
    except asyncio.CancelledError:
        if not received:
            raise
        return Outcome(False, SIGNALLED + received[0])
