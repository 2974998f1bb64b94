"""ChangeListener: keeps the tracked streams up to date with what others change in Redis.

Other workers and commands publish each stream whose questions they changed on `PREFIX:question`;
an empty name says that `xl3m rebuild` reset partitions. Messages are lost while the connection is
down, and a restarted Redis may have lost its last writes: so everything is checked again on each
connection.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from stream_app.runtime.retry import TRANSIENT_ERRORS, Health, Retry
from stream_app.scoring.streams import StreamRegistry
from stream_app.store.store import StreamStore


class ChangeListener:
    """One per worker. on_reset: called in order whenever Redis may hold less than this worker
    wrote: on each connection, and after a rebuild."""

    def __init__(
        self,
        store: StreamStore,
        streams: StreamRegistry,
        health: Health,
        on_reset: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self.store = store
        self.streams = streams
        self.health = health
        self.on_reset = on_reset

    async def run(self) -> None:
        """Listen, and reconnect whenever the connection to Redis is lost."""
        with self.health.track("notifications") as retry:
            while True:
                try:
                    await self._listen(retry)
                except TRANSIENT_ERRORS as error:
                    await retry.back_off(error)

    async def _listen(self, retry: Retry) -> None:
        async with aclosing(self.store.listen(self.store.keys.question_channel())) as messages:
            async for message in messages:
                if message is None:
                    await self._reset()
                    self._reload_all()
                    retry.succeeded()
                elif stream := message["data"].decode(errors="replace"):
                    self.streams.on_questions_changed(stream)
                else:
                    await self._reset()

    async def _reset(self) -> None:
        for check in self.on_reset:
            await check()

    def _reload_all(self) -> None:
        for stream in list(self.streams.tracked):
            self.streams.on_questions_changed(stream)
