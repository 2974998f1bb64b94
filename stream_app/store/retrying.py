"""Retrying: a store's method waits for a Redis that is away, if the store has a `Health`.

Workers give their stores one and wait, visibly. Clients and commands give none: the error is
raised at once. Only idempotent methods are decorated: a reply may be lost after its effect.
"""

import copy
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from stream_app.runtime.retry import Health, raise_if_cancelled, retry_forever


class _HasHealth(Protocol):
    health: Health | None


S = TypeVar("S", bound=_HasHealth)
T = TypeVar("T")
P = ParamSpec("P")


def retried(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Retry an idempotent method on transient errors for as long as it takes, shown in the store's
    `Health` under the method's name; other errors, such as a missing file, are raised."""
    step = method.__name__.replace("_", " ")

    @functools.wraps(method)
    async def call(store: S, *args: P.args, **kwargs: P.kwargs) -> T:
        if store.health is None:
            result = await method(store, *args, **kwargs)
            raise_if_cancelled()
            return result
        return await retry_forever(store.health, step, method, store, *args, **kwargs)

    return cast(Callable[Concatenate[S, P], Coroutine[Any, Any, T]], call)


def without_retry(store: S) -> S:
    """The same store, whose own methods raise at once: for a caller that retries a larger step, or
    that has a better answer to an error than to wait."""
    impatient = copy.copy(store)
    impatient.health = None
    return impatient
