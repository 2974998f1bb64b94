"""Retries: an operation on Redis or the schema registry is repeated until it succeeds.

Only for operations that may be done twice. Errors that do not pass by themselves, such as a missing
file or a wrong command, are raised at once. `Health` knows what is being retried and why; the log
says so at once, and then ever more rarely.
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
"""Shorter outages get no line when they end, and an outage that starts sooner after the last one
counts as the same one."""
TRANSIENT_ERRORS = (exceptions.RedisError, OSError)
"""The classes to catch; `is_transient` decides about each error."""

_CONNECTION_ERRORS = (exceptions.ConnectionError, exceptions.TimeoutError)
_CODES = "OOM|READONLY|LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|NOSCRIPT"
_STATE_ERRORS = (
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    exceptions.NoScriptError,
)
# Redis 6 reports an error inside a script as "Error running script (…): … -OOM command not …".
_STATE = re.compile(rf"^\W*(?:{_CODES})\b|^\W*Error running script\b.*?-(?:{_CODES})\b", re.S)
_LOCAL_ERRORS = (
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
    """Whether the error passes by itself: it comes from the state of Redis or the network, not from
    a wrong command or a local file."""
    if isinstance(error, OSError):
        return not isinstance(error, _LOCAL_ERRORS)
    if isinstance(error, (*_CONNECTION_ERRORS, *_STATE_ERRORS)):
        return True
    return isinstance(error, exceptions.ResponseError) and bool(_STATE.match(reason(error)))


def reason(error: BaseException) -> str:
    """Redis' own message: redis-py puts the command before it, which may hold private text."""
    return str(error).rpartition(_IN_PIPELINE)[2]


class Retry:
    """One caller's tries of an operation. failures: in a row."""

    def __init__(self, health: "Health", operation: str) -> None:
        self.health, self.operation = health, operation
        self.failures = 0

    def failed(self, error: BaseException) -> float:
        """Note a failed try; returns the seconds to wait before the next one."""
        pause = BACKOFF_SECONDS[min(self.failures, len(BACKOFF_SECONDS) - 1)]
        self.failures += 1
        self.health.add(self, getattr(error, "service", "Redis"), reason(error), pause)
        return pause

    async def back_off(self, error: BaseException) -> None:
        """Wait before the next try. Raises the error itself if it does not pass by itself."""
        if not is_transient(error):
            raise error
        raise_if_cancelled()
        await asyncio.sleep(self.failed(error))

    def succeeded(self) -> None:
        """The operation works again."""
        self.failures = 0
        self.health.remove(self)


class Health:
    """Whether the services a worker needs answer. One entry per caller that is retrying, so a
    success clears the caller's own entry and no other. blocked: the partitions that wait for a
    person to act, each with the reason; they hold up nothing else."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.blocked: dict[str, str] = {}
        self._retrying: dict[Retry, str] = {}
        self._throttles: dict[str, LogThrottle] = {}
        self._started: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._clock = clock

    @property
    def ok(self) -> bool:
        """True while nothing is being retried."""
        return not self._retrying

    @property
    def retrying(self) -> dict[str, str]:
        """The operations that at least one caller is retrying, each with the last reason."""
        return {retry.operation: why for retry, why in self._retrying.items()}

    @contextmanager
    def track(self, operation: str) -> Iterator[Retry]:
        """A caller's tries of an operation; its entry is removed on leaving, however that is."""
        retry = Retry(self, operation)
        try:
            yield retry
        finally:
            self.remove(retry)

    def add(self, retry: Retry, service: str, why: str, pause: float) -> None:
        """The caller is retrying. Logged at once, then ever more rarely: Redis may be away for a
        night, or come and go all the time."""
        operation, now = retry.operation, self._clock()
        if operation not in self.retrying:
            self._started[operation] = now
            if operation not in self._throttles or now - self._ended[operation] > CALM_SECONDS:
                self._throttles[operation] = LogThrottle(self._clock)
        self._retrying[retry] = why
        if (omitted := self._throttles[operation].due()) is not None:
            more = f" ({omitted} more failures were not logged)" if omitted else ""
            logger.error(
                "%s waits for %s: %s; next try in %.1f s%s", operation, service, why, pause, more
            )

    def remove(self, retry: Retry) -> None:
        """The caller is no longer retrying; others may be."""
        operation = retry.operation
        if self._retrying.pop(retry, None) is None or operation in self.retrying:
            return
        self._ended[operation] = now = self._clock()
        if (seconds := now - self._started[operation]) > CALM_SECONDS:
            logger.info("%s continues after %.0f s", operation, seconds)


async def retry_forever(
    health: Health,
    operation: str,
    call: Callable[P, Awaitable[T]],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call until it succeeds; returns its result. Raises any error that is not transient."""
    with health.track(operation) as retry:
        while True:
            try:
                result = await call(*args, **kwargs)
                raise_if_cancelled()
                return result
            except TRANSIENT_ERRORS as error:
                await retry.back_off(error)


def raise_if_cancelled() -> None:
    """Raise CancelledError if this task was cancelled: redis-py sends under `asyncio.wait_for`,
    which before Python 3.12 swallows a cancellation that arrives as it finishes. The task would
    continue, and a worker asked to stop would not."""
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError
