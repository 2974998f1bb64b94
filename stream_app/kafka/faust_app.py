"""The Faust app: settings, topics, and functions that add agents and services.

`create_faust(settings)` returns an App that acknowledges nothing by itself. What it runs is added
by `add_agent`, `add_service`, `add_early_service` and `on_assigned`; `stream_app.app` does that.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, cast

import faust
from faust import streams
from faust.types import TP
from mode import CrashingSupervisor, Service

from stream_app.errors import SettingsError
from stream_app.kafka import auth, connection
from stream_app.kafka.consumer import BETWEEN_GENERATIONS, Consumer
from stream_app.kafka.dead_letters import Send
from stream_app.kafka.fetch_state import FetchState
from stream_app.kafka.records import BundledEvent, Event
from stream_app.runtime.shutdown import Shutdown
from stream_app.settings import Settings

POLL_RECORDS = 512
"""Records of one poll at most; they go into the partitions' buffers, full or not."""
MAX_ANSWER_BYTES = 4 << 20
UNREACHABLE_CODE = 3
"""Exit code of a worker that Kafka refuses, at start-up and later."""
DRAIN_SECONDS = 100.0
"""How long a rebalance waits for queries in progress. Their default deadline is 30 s, so normally
all of them finish."""
MAX_REQUEST_BYTES = 2**31 - 1
"""Kafka's protocol has 32 bits for a size."""


class Runnable(Protocol):
    """A service: one coroutine that runs for as long as the worker does."""

    async def run(self) -> None:
        """Run until cancelled."""


class Buffers(Protocol):
    """Buffers of events that Faust clears when partitions are revoked."""

    def clear(self) -> None:
        """Drop everything, unacknowledged."""


async def _idle() -> None:
    """For an app that has no ingest."""


class App(faust.App):
    """A Faust app with our consumer and a bounded shutdown: Faust itself waits without limit for
    unacknowledged messages.

    batched_topics: topics of which a poll delivers one bundle per partition; the collection may
    grow. ingest_idle: returns when no batch of theirs is in progress. blocked: partitions that wait
    for an operator, by name, with the reason; written by the consumer.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        batched_topics: Collection[str] = (),
        ingest_idle: Callable[[], Awaitable[None]] = _idle,
        blocked: dict[str, str] | None = None,
    ) -> None:
        super().__init__(settings.group, **_options(settings))
        self.batched_topics = batched_topics
        self.ingest_idle = ingest_idle
        self.shutdown = Shutdown(settings.shutdown_timeout_seconds)
        self.fetch_state = FetchState(
            settings.max_batch_bytes,
            settings.isolation_level,
            settings.unreadable,
            {} if blocked is None else blocked,
        )
        self.explain_refusal = partial(connection.explain_refusal, settings)

    @property
    def is_assigned(self) -> bool:
        """Whether partitions were assigned, and no rebalance or shutdown is in progress."""
        return bool(self.rebalancing_count and not self.rebalancing and not self.should_stop)

    def pause_partition(self, partition: tuple[str, int]) -> None:
        """Fetch no more of a partition whose buffer is full, as if it were a buffer of Faust.

        `pause_partitions` is not used: it skips what was already polled, and the skipped offsets
        would count as missing.
        """
        self.consumer.on_buffer_full(TP(*partition))

    def resume_partition(self, partition: tuple[str, int]) -> None:
        """Fetch the partition again."""
        self.consumer.on_buffer_drop(TP(*partition))

    def discard(self, event: Event) -> None:
        """Stop waiting for the acknowledgement of an event that a buffer dropped. Faust does so for
        its own buffers, but it has already delivered this event."""
        if isinstance(event, BundledEvent) and event.bundle is not None:
            self.consumer.unacked.discard(cast(Any, event.bundle.message))

    def clear_when_revoked(self, buffers: Buffers) -> None:
        """Have Faust clear the buffers with its own when partitions are revoked."""
        self.flow_control.manage_queue(cast(Any, buffers))

    def on_refused(self, error: Exception) -> None:
        """Kafka refuses something that this worker cannot run without: log what to do, and end."""
        self.shutdown.end_now(UNREACHABLE_CODE, self.explain_refusal(error))

    async def on_stop(self) -> None:
        """Called by Faust, also for a worker that ends because of an error."""
        self.shutdown.begin()
        await super().on_stop()

    def _new_consumer(self) -> Consumer:
        """Called by Faust when it first needs a consumer."""
        cast(Any, self.transport).Consumer = Consumer
        return cast(Consumer, super()._new_consumer())

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Called by Faust before partitions are revoked. If the last assignment is still in
        progress, for example because Redis is down, the next `Consumer.check` ends it."""
        self.consumer_generation_id = BETWEEN_GENERATIONS
        await super()._on_partitions_revoked(revoked)

    def _create_directories(self) -> None:
        """Called by Faust to create a folder for tables; there are no tables."""

    async def _consumer_wait_empty(self, consumer: Any, logger: Any) -> None:
        """Called by Faust before partitions are revoked and before the consumer stops.

        On shutdown a batch in progress is abandoned, since it will be redelivered; queries are
        drained. On a rebalance slow answers hold up the whole group, and in the end the broker
        would evict this worker: after DRAIN_SECONDS they are left for redelivery.
        """
        if not self.should_stop:
            deadline = (loop := asyncio.get_running_loop()).time() + DRAIN_SECONDS
            # Faust knows bundles only, and forgets one whose buffered events were discarded.
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ingest_idle(), DRAIN_SECONDS)
            # No asyncio timeout: Faust's wait swallows a cancellation.
            timer = loop.call_at(deadline, consumer.unacked.clear)
            try:
                await super()._consumer_wait_empty(consumer, logger)
            finally:
                timer.cancel()
        elif not self.crashed:
            await self.shutdown.drain()


def create_faust(
    settings: Settings,
    *,
    batched_topics: Collection[str] = (),
    ingest_idle: Callable[[], Awaitable[None]] = _idle,
    blocked: dict[str, str] | None = None,
) -> App:
    """An App without agents. Its parameters are App's.

    Raises SettingsError if Faust's C extension is missing: its Python twin acknowledges events
    that it skipped.
    """
    if getattr(streams, "_CStreamIterator", None) is None:
        raise SettingsError(
            "Faust runs without its C extension and would acknowledge events it skipped: "
            "unset NO_CYTHON, and install a faust-streaming wheel for this platform"
        )
    return App(settings, batched_topics=batched_topics, ingest_idle=ingest_idle, blocked=blocked)


def _options(settings: Settings) -> dict[str, Any]:
    """Faust's settings, chosen so that no event is acknowledged before its work is done."""
    return {
        "env": {},  # else Faust's variables (BROKER_URL, APP_VERSION) override what is set here
        "broker": settings.broker,
        "broker_credentials": auth.faust_credentials(settings),
        "key_serializer": "raw",
        "value_serializer": "raw",
        "agent_supervisor": CrashingSupervisor,
        "consumer_auto_offset_reset": "earliest",
        "broker_commit_interval": 1.0,
        "broker_session_timeout": settings.session_timeout_seconds,
        "broker_heartbeat_interval": settings.session_timeout_seconds / 10,
        "broker_request_timeout": 160.0,
        # A worker with a slow model must stay in the group; the watchdog ends a stuck one.
        "broker_max_poll_interval": 1_000_000.0,
        "broker_max_poll_records": POLL_RECORDS,
        # Shorter than a request: joining waits for all members to rejoin.
        "broker_rebalance_timeout": 1.5 * DRAIN_SECONDS,
        "stream_buffer_maxsize": 64,
        "stream_wait_empty": True,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
        # Dead letters and answers have their own size, even where events are small.
        "producer_max_request_size": min(
            max(4 * settings.max_event_bytes, MAX_ANSWER_BYTES), MAX_REQUEST_BYTES
        ),
        "consumer_max_fetch_size": min(4 * settings.max_event_bytes, MAX_REQUEST_BYTES),
        "web_enabled": False,
        "worker_redirect_stdouts": False,
        "store": "memory://",
    }


def raw_topic(app: faust.App, *names: str) -> Any:
    """A topic, or several read as one, with undecoded keys and values."""
    return app.topic(*names, key_serializer="raw", value_serializer="raw")


def topic_sender(topic: Any) -> Send:
    """A function that sends to the topic and returns when the broker has acknowledged it."""

    async def send(key: bytes | None, value: bytes) -> None:
        await (await topic.send(key=key, value=value))

    return send


def add_agent(
    app: faust.App,
    topic: Any,
    handle: Callable[[AsyncIterator[Event]], Awaitable[None]],
    name: str = "tokens",
) -> None:
    """Add an agent that leaves acknowledging to `handle`."""

    async def run(stream: Any) -> None:
        await handle(stream.noack().events())

    app.agent(topic, name=name)(run)


def add_service(app: faust.App, service: Runnable) -> None:
    """Run a service from the first assignment on."""

    async def run() -> None:
        await service.run()

    run.__name__ = run.__qualname__ = type(service).__name__.lower()
    app.task(run)


def add_early_service(app: faust.App, service: Runnable) -> None:
    """Run a service as soon as the app starts. The first assignment may come much later: it waits
    for Redis and for the other workers."""
    app.add_dependency(_StartBeforeAssignment(service))


def on_assigned(app: faust.App, listener: Callable[[], Awaitable[None]]) -> None:
    """Call `listener` after each new assignment.

    Faust awaits this signal when the new assignment is known, before it seeks to the committed
    offsets and lets events through. It does not await its `on_partitions_assigned`: with that
    one, events would arrive before their partition is known to be owned.
    """

    async def assigned(sender: Any, **_: Any) -> None:
        await listener()

    signal: Any = app.on_rebalance_complete
    signal.connect(assigned, weak=False)


class _StartBeforeAssignment(Service):
    """Makes a service a dependency of the app, which Faust starts first."""

    def __init__(self, service: Runnable) -> None:
        super().__init__()
        self.service = service

    async def on_start(self) -> None:
        """Called by Faust."""
        self.add_future(self.service.run())
