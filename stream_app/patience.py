"""Patience: a step on Redis, or on the schema registry, is tried until it is done. Loud, and with
growing pauses.

Only for steps that may be done twice. Tells `Health`, so that others can see it. Knows which
errors pass by themselves; anything else is raised.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from redis import exceptions

logger = logging.getLogger("xl3m")
T = TypeVar("T")
P = ParamSpec("P")

PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0)
PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    OSError,
)


class Health:
    """Whether the infrastructure answers: the name of each step that is waiting for it. held: each
    partition that waits for a person, and why; it holds up nothing else."""

    def __init__(self) -> None:
        self.waiting: dict[str, str] = {}
        self.held: dict[str, str] = {}

    @property
    def ok(self) -> bool:
        """True while no step waits."""
        return not self.waiting


async def patiently(
    health: Health,
    step: str,
    call: Callable[P, Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Do the call, again and again while what it needs is away; returns what it returns."""
    tries = 0
    while True:
        try:
            done = await call(*args, **kwargs)
            health.waiting.pop(step, None)
            end_if_cancelled()
            return done
        except PASSING as error:
            health.waiting[step] = str(error)
            pause = PAUSES[min(tries, len(PAUSES) - 1)]
            awaited = getattr(error, "service", "Redis")
            logger.error("%s waits for %s: %s; next try in %.1f s", step, awaited, error, pause)
            await asyncio.sleep(pause)
            tries += 1
        except Exception:  # Redis answered
            health.waiting.pop(step, None)
            raise


def end_if_cancelled() -> None:
    """redis-py sends under `asyncio.wait_for`, which before Python 3.12 swallows a cancellation
    that comes as it is done. The task would go on, and a worker asked to stop would not."""
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError
