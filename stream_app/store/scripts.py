"""Script: an atomic step in Redis, many calls of it in one round trip.

Knows how to have a script run; not what it does.
"""

from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any, TypeVar

from redis.exceptions import NoScriptError

from stream_app.store.connection import AnyRedis

T = TypeVar("T")
Call = tuple[Sequence[str], Sequence[Any]]
"""Its keys and its arguments."""


class Script:
    """One of the Lua files beside this one."""

    def __init__(self, redis: AnyRedis, name: str) -> None:
        self.redis = redis
        text = files("stream_app.store").joinpath("lua", name).read_text()
        self.registered = redis.register_script(text)

    async def __call__(self, names: Sequence[str], args: Sequence[Any] = ()) -> Any:
        """What it returns."""
        return await self._known(lambda: self._evaluated(self.redis, names, args))

    async def each(self, calls: Sequence[Call], outlived: Sequence[str] = ()) -> list[Any]:
        """What each call returns; keys that are outlived go behind them."""
        return await self._known(lambda: self._called(calls, outlived))

    async def _called(self, calls: Sequence[Call], outlived: Sequence[str]) -> list[Any]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for names, args in calls:
                self._evaluated(pipe, names, args)
            for name in outlived:
                pipe.unlink(name)
            return list(await pipe.execute())[: len(calls)]

    def _evaluated(self, to: Any, names: Sequence[str], args: Sequence[Any]) -> Any:
        """Have Redis, or a pipeline to it, evaluate a call."""
        return to.evalsha(self.registered.sha, len(names), *names, *args)

    async def _known(self, evaluated: Callable[[], Awaitable[T]]) -> T:
        """What is evaluated. A Redis that was started again knows no script any more: then nothing
        was, and all is once more. redis-py's own scripts ask it each time, which is a round trip.
        """
        try:
            return await evaluated()
        except NoScriptError:
            await self.redis.script_load(self.registered.script)
            return await evaluated()
