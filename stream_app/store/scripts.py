"""Script: an atomic step in Redis, written in Lua; many calls of it in one round trip.

A script takes its arguments as one msgpack map, by name. One that changes something returns such a
map as well; one that reads returns Redis' own replies. The head of each file in lua/ says what.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, TypeVar

import msgpack
from redis.exceptions import NoScriptError

from stream_app.store.connection import AnyRedis

T = TypeVar("T")
Call = tuple[Sequence[str], Mapping[str, Any]]
"""A call's keys, and its arguments by name."""


class Script:
    """One of the Lua files beside this module, or several of them one behind the other: functions
    that scripts share come first. Raises FileNotFoundError if one is not there."""

    def __init__(self, redis: AnyRedis, *names: str) -> None:
        self.redis = redis
        folder = files("stream_app.store").joinpath("lua")
        text = "\n".join(folder.joinpath(name).read_text() for name in names)
        self.registered = redis.register_script(text)

    async def __call__(self, keys: Sequence[str], **arguments: Any) -> Any:
        """What the script returns."""
        reply = await self._with_script(lambda: self._evaluate(self.redis, keys, arguments))
        return _decoded(reply)

    async def each(self, calls: Sequence[Call]) -> list[Any]:
        """What the script returns for each call, in one round trip."""
        return [*map(_decoded, await self._with_script(lambda: self._execute(calls)))]

    async def _execute(self, calls: Sequence[Call]) -> list[Any]:
        async with self.redis.pipeline(transaction=False) as pipe:
            for keys, arguments in calls:
                self._evaluate(pipe, keys, arguments)
            return list(await pipe.execute())

    def _evaluate(self, redis: AnyRedis, keys: Sequence[str], arguments: Mapping[str, Any]) -> Any:
        """Have Redis, or a pipeline to it, evaluate a call."""
        return redis.evalsha(self.registered.sha, len(keys), *keys, _encoded(arguments))

    async def _with_script(self, evaluate: Callable[[], Awaitable[T]]) -> T:
        """Evaluate. A Redis that was restarted has forgotten all scripts: then nothing was
        evaluated, the script is loaded and all is sent again. redis-py's own scripts ask Redis
        each time, which is a round trip more."""
        try:
            return await evaluate()
        except NoScriptError:
            await self.redis.script_load(self.registered.script)
            return await evaluate()


def _encoded(arguments: Mapping[str, Any]) -> bytes:
    # Lua has one kind of string, and cmsgpack does not know msgpack's type for bytes.
    return bytes(msgpack.packb(arguments, use_bin_type=False))


def _decoded(reply: Any) -> Any:
    return msgpack.unpackb(reply) if isinstance(reply, bytes) else reply
