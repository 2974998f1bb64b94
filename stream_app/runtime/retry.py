"""Patience: a step on Redis, or on the schema registry, is tried until it is done. Loud, and with
growing pauses.

Only for steps that may be done twice. Tells `Health`, so that others can see it. Knows which
errors pass by themselves; anything else is raised.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from redis import exceptions

from stream_app.runtime.log_throttle import LogThrottle

logger = logging.getLogger("xl3m")
T = TypeVar("T")
P = ParamSpec("P")

BACKOFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
CALM_SECONDS = 5.0
"""What waited for less is not said to go on; what waits again within it is still the same."""
TRANSIENT_ERRORS = (exceptions.RedisError, OSError)
"""To catch; `passes` says whether this one does."""

_CLASSES = (exceptions.ConnectionError, exceptions.TimeoutError)
_CODES = "OOM|READONLY|LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|NOSCRIPT"
_CODED = (
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    exceptions.NoScriptError,
)
# Redis 6 words what fails inside a script as "Error running script (…): … -OOM command not …".
_STATE = re.compile(rf"^\W*(?:{_CODES})\b|^\W*Error running script\b.*?-(?:{_CODES})\b", re.S)
_OWN_FAULT = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ChildProcessError,
    ProcessLookupError,
)
_IN_PIPELINE = "of pipeline caused error: "


def is_transient(error: BaseException) -> bool:
    """Whether the error is about the state that Redis or the network is in, which passes by itself:
    not about what Redis was asked, or a file of ours."""
    if isinstance(error, OSError):
        return not isinstance(error, _OWN_FAULT)
    if isinstance(error, (*_CLASSES, *_CODED)):
        return True
    return isinstance(error, exceptions.ResponseError) and bool(_STATE.match(reason(error)))


def reason(error: BaseException) -> str:
    """What Redis said; redis-py puts the command before it, which may hold anybody's text."""
    return str(error).rpartition(_IN_PIPELINE)[2]


class Waiting:
    """One who is at a step; tries: how many were in vain in a row."""

    def __init__(self, health: "Health", step: str) -> None:
        self.health, self.step = health, step
        self.tries = 0

    def failed(self, error: BaseException) -> float:
        """It waits from now on; returns for how long before the next try."""
        pause = BACKOFF_SECONDS[min(self.tries, len(BACKOFF_SECONDS) - 1)]
        self.tries += 1
        self.health.waits(self, getattr(error, "service", "Redis"), reason(error), pause)
        return pause

    def done(self) -> None:
        """It does not wait any more."""
        self.tries = 0
        self.health.goes_on(self)


class Health:
    """Whether the infrastructure answers: who waits for it, by the names of their steps. blocked:
    each partition that waits for a person, and why; it holds up nothing else."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.blocked: dict[str, str] = {}
        self._waiting: dict[Waiting, str] = {}
        self._said: dict[str, LogThrottle] = {}
        self._began: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._clock = clock

    @property
    def ok(self) -> bool:
        """True while no step waits."""
        return not self._waiting

    @property
    def retrying(self) -> dict[str, str]:
        """The steps that somebody waits at, and why."""
        return {waiting.step: why for waiting, why in self._waiting.items()}

    @contextmanager
    def at(self, step: str) -> Iterator[Waiting]:
        """For as long as the step is tried, whatever becomes of it."""
        waiting = Waiting(self, step)
        try:
            yield waiting
        finally:
            self.goes_on(waiting)

    def waits(self, waiting: Waiting, service: str, why: str, pause: float) -> None:
        """Said at once, and again ever more rarely: Redis may be away for a night, or come and go
        all the time."""
        step, now = waiting.step, self._clock()
        if step not in self.retrying:
            self._began[step] = now
            if step not in self._said or now - self._ended[step] > CALM_SECONDS:
                self._said[step] = LogThrottle(self._clock)
        self._waiting[waiting] = why
        if (left_out := self._said[step].due()) is not None:
            times = f" ({left_out} tries more were in vain)" if left_out else ""
            logger.error(
                "%s waits for %s: %s; next try in %.1f s%s", step, service, why, pause, times
            )

    def goes_on(self, waiting: Waiting) -> None:
        """One who waited at a step does not any more; others may."""
        if self._waiting.pop(waiting, None) is None or waiting.step in self.retrying:
            return
        self._ended[waiting.step] = now = self._clock()
        if (seconds := now - self._began[waiting.step]) > CALM_SECONDS:
            logger.info("%s goes on, after %.0f s", waiting.step, seconds)


async def retry_forever(
    health: Health,
    step: str,
    call: Callable[P, Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Do the call, again and again while what it needs is away; returns what it returns."""
    with health.at(step) as waiting:
        while True:
            try:
                done = await call(*args, **kwargs)
                raise_if_cancelled()
                return done
            except TRANSIENT_ERRORS as error:
                if not is_transient(error):
                    raise
                raise_if_cancelled()
                await asyncio.sleep(waiting.failed(error))


def raise_if_cancelled() -> None:
    """redis-py sends under `asyncio.wait_for`, which before Python 3.12 swallows a cancellation
    that comes as it is done. The task would go on, and a worker asked to stop would not."""
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError
