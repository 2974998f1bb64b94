"""create_app: builds the parts of a worker and ties them together. Wiring only."""

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any, cast

import faust
from faust.types import TP
from mode import CrashingSupervisor, Service
from redis.asyncio import Redis

from stream_app.client.client import store_of
from stream_app.engine import create_engine
from stream_app.errors import SettingsError
from stream_app.ingest.partitions import Assignment
from stream_app.ingest.queues import BATCH_EVENTS
from stream_app.ingest.rebalance import on_assignment, on_full_queues
from stream_app.ingest.segmentation import SegmentationCheck
from stream_app.ingest.tokens import Ingest
from stream_app.kafka import auth, connection
from stream_app.kafka.consumer import BETWEEN_GENERATIONS, Consumer
from stream_app.kafka.dead_letters import DeadLetterLog, dead_letter_sender
from stream_app.kafka.fetcher import FetchState
from stream_app.kafka.topic_pattern import TopicPattern, subscriber
from stream_app.kafka.topics import TOPICS
from stream_app.monitoring.http import MonitoringServer
from stream_app.monitoring.memory import MemorySampler
from stream_app.monitoring.metrics import Metrics
from stream_app.monitoring.readiness import Readiness
from stream_app.queries import kafka
from stream_app.queries.answering import Answering
from stream_app.queries.prefetch import PromptPrefetcher
from stream_app.queries.pubsub import PubSubServer
from stream_app.runtime.retry import Health
from stream_app.runtime.shutdown import Shutdown
from stream_app.runtime.watchdog import Watchdog
from stream_app.scoring.prefilter import Prefilter
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.settings.offset_reset import parse_start
from xl3m_core import Engine

logger = logging.getLogger("xl3m")

ANSWER_BYTES = 4 << 20
UNREACHABLE_CODE = 3
"""Of a process that ends since Kafka does not let it in, as at its start."""
# Longer than all queries begun take, as a rule: their deadline is 30 s, if nobody says another.
WAITED_SECONDS = 100.0
# Kafka's protocol has 32 bits for a size.
MOST_FETCHED = 2**31 - 1


class App(faust.App):
    """A Faust app whose consumer is ours, and that ends within a bound: Faust itself waits for all
    that is unacknowledged, however long that takes. polled: topics of which all that a poll brings
    of a partition comes as one event; settled: returns when nothing of them is being worked on;
    explained: what to do about what Kafka refuses."""

    stopping: Shutdown
    fetch_state: FetchState
    explained: Callable[[Exception], str]
    batched_topics: Collection[str] = ()
    ingest_idle: Callable[[], Awaitable[None]]

    def _new_consumer(self) -> Consumer:
        """Called by Faust when it first needs one."""
        cast(Any, self.transport).Consumer = Consumer
        return cast(Consumer, super()._new_consumer())

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Called by Faust before partitions go. If those of the last assignment are still being
        taken over, say because Redis is away, that is broken off at the next `Consumer.check`."""
        self.consumer_generation_id = BETWEEN_GENERATIONS
        await super()._on_partitions_revoked(revoked)

    def _create_directories(self) -> None:
        """Called by Faust to make a folder for tables, of which there are none."""

    def refused(self, error: Exception) -> None:
        """Kafka refuses what this worker cannot do without: say what to do, and end."""
        self.stopping.end_now(UNREACHABLE_CODE, self.explained(error))

    async def on_stop(self) -> None:
        """Called by Faust; also for a worker that ends by an error."""
        self.stopping.begin()
        await super().on_stop()

    async def _consumer_wait_empty(self, consumer: Any, logger: Any) -> None:
        """Called before partitions go, and before the consumer stops. Then a batch that is being
        read is left as it is, since it will be delivered again; queries are not. Slow answers hold
        up the whole group, and in the end this worker is put out of it: after a while they are
        left to be delivered again as well."""
        if not self.should_stop:
            until = (loop := asyncio.get_running_loop()).time() + WAITED_SECONDS
            # Faust knows polls alone, and of one whose rest was let go nothing any more.
            with suppress(TimeoutError):
                await asyncio.wait_for(self.ingest_idle(), WAITED_SECONDS)
            # Not by a timeout: what Faust waits with swallows a cancellation.
            enough = loop.call_at(until, consumer.unacked.clear)
            try:
                await super()._consumer_wait_empty(consumer, logger)
            finally:
                enough.cancel()
        elif not self.crashed:
            await self.stopping.drain()


def create_app(settings: Settings, engine: Engine | None = None) -> App:
    """A Faust app that is a whole worker: run it with `faust.Worker`. engine: if it is not to be
    the one that the settings ask for.

    Raises ModelError or MethodError when the model cannot be had or its window is too short.
    """
    engine = engine or create_engine(settings)
    redis = Redis.from_url(settings.redis)
    store = store_of(settings, redis)
    health = Health()
    scout, step_seconds = Prefilter(settings.redis, store.keys), settings.step_target_ms / 1000
    scoring = Scorer(
        engine,
        store,
        health,
        settings.max_lag_tokens,
        step_seconds,
        scout,
        on_step=lambda fill, seconds: metrics.stepped(fill, seconds),
        on_change=lambda stream, qid: warming.changed(stream, qid),
        on_room=lambda: ingest.queues.wake(),
    )
    tokens = set(settings.tokens_topics)
    start = parse_start(settings.start, time.time())
    partitions = Assignment(store, settings.tokens_topic, tokens, start)
    warming = PromptPrefetcher(engine, store, scoring, health)
    answering = Answering(settings, engine, store, scoring, warming, health)
    app = create_faust(settings)
    stopping = app.stopping
    door = PubSubServer(settings, redis, answering, scoring, health, stopping)
    app.fetch_state.blocked = health.blocked
    topic = {name: raw_topic(app, *names) for name, names in _names(settings, tokens).items()}
    # The queues bound what is at hand of it: Faust's own bound holds up all partitions for one.
    topic["tokens"].maxsize = sys.maxsize
    weights = MemorySampler(store, scoring.streams)
    metrics = Metrics(scoring, answering, health, weights)
    letters = door.log = DeadLetterLog()
    bury = dead_letter_sender(kafka.sender(topic["dead_letters"]), metrics.dead_letter, letters)
    ingest = Ingest(settings, engine, store, partitions, scoring, bury, health)
    metrics.listen(ingest.decoder.notes)
    app.batched_topics, app.ingest_idle = tokens, ingest.idle
    asked = Assignment(store, settings.questions_topic)
    questions = kafka.QuestionsAgent(settings, asked, scoring, bury, health)
    door.on_listening = (partitions.check_generation, asked.check_generation)
    queries = kafka.QueriesAgent(
        settings, answering, kafka.sender(topic["answers"]), bury, stopping
    )
    queries.on_skipped = door.on_skipped = metrics.skipped
    kafka.agent(app, topic["tokens"], ingest.run, "tokens")
    kafka.agent(app, topic["questions"], questions.run, "questions")
    kafka.agent(app, topic["queries"], queries.run, "queries")
    topic_watch = TopicPattern(settings, tokens, subscriber(app, topic["tokens"]))

    watchdog = Watchdog(
        settings.watchdog_seconds,
        progress=lambda: (ingest.batches, scoring.model_calls, scoring.steps, app.rebalancing),
        busy=lambda: (
            (health.ok or app.should_stop)
            and (ingest.working or scoring.working or app.rebalancing)
        ),
    )
    ready = Readiness(settings, redis, health, lambda: _is_settled(app))
    http = MonitoringServer(settings.http_host, settings.http_port, metrics.registry, ready.reasons)
    if settings.http_port:
        app.add_dependency(_StartBeforeAssignment(http))
    cuts = SegmentationCheck(engine, store, health)
    for service in (scoring, warming, door, watchdog, weights, letters, topic_watch, cuts):
        app.task(_named(service))
    on_full_queues(app, ingest.queues)
    on_assignment(app, ingest, asked, scoring, health)
    return app


def create_faust(settings: Settings) -> App:
    """A bare Faust app, set so that no event is acknowledged before its work is done."""
    from faust import streams

    if getattr(streams, "_CStreamIterator", None) is None:
        raise SettingsError(
            "Faust runs without its C extension and would acknowledge events it skipped: "
            "unset NO_CYTHON, and install a faust-streaming wheel for this platform"
        )
    app = App(
        settings.group,
        env={},  # Faust's own variables (BROKER_URL, APP_VERSION) would win over what is said here
        broker=settings.broker,
        broker_credentials=auth.faust_credentials(settings),
        key_serializer="raw",
        value_serializer="raw",
        agent_supervisor=CrashingSupervisor,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=1.0,
        broker_session_timeout=settings.session_timeout_seconds,
        broker_heartbeat_interval=settings.session_timeout_seconds / 10,
        broker_request_timeout=160.0,
        # Waiting for the model is no reason to be thrown out of the group; see the watchdog.
        broker_max_poll_interval=1_000_000.0,
        # What is polled goes into the queues, full or not.
        broker_max_poll_records=BATCH_EVENTS,
        # Shorter than a request: joining waits for all to rejoin.
        broker_rebalance_timeout=1.5 * WAITED_SECONDS,
        stream_buffer_maxsize=64,
        stream_wait_empty=True,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        # Dead letters and answers have sizes of their own, however small an event may be.
        producer_max_request_size=min(
            max(4 * settings.max_event_bytes, ANSWER_BYTES), MOST_FETCHED
        ),
        consumer_max_fetch_size=min(4 * settings.max_event_bytes, MOST_FETCHED),
        web_enabled=False,
        worker_redirect_stdouts=False,
        store="memory://",
    )
    app.stopping, app.ingest_idle = (
        Shutdown(settings.shutdown_timeout_seconds),
        partial(asyncio.sleep, 0),
    )
    app.fetch_state = FetchState(
        settings.max_batch_bytes, settings.isolation_level, settings.unreadable
    )
    app.explained = partial(connection.explain_refusal, settings)
    return app


def raw_topic(app: faust.App, *names: str) -> Any:
    """A topic, or several as one, whose keys and values are decoded by us."""
    return app.topic(*names, key_serializer="raw", value_serializer="raw")


def _names(settings: Settings, tokens: set[str]) -> dict[str, list[str]]:
    """What each kind of topic is called."""
    names = {name: [getattr(settings, f"{name}_topic")] for name in TOPICS}
    return names | {"tokens": sorted(tokens)}


def _named(service: Any) -> Any:
    """A service's run method as the plain function that `app.task` wants."""

    async def run() -> None:
        await service.run()

    run.__name__ = run.__qualname__ = type(service).__name__.lower()
    return run


class _StartBeforeAssignment(Service):
    """Runs a service as soon as the app starts: what `app.task` is given waits for the first
    assignment, and that waits for Redis and the other workers."""

    def __init__(self, service: Any) -> None:
        super().__init__()
        self.service = service

    async def on_start(self) -> None:
        """Called by Faust."""
        self.add_future(self.service.run())


def _is_settled(app: faust.App) -> bool:
    """Whether partitions were assigned, and none are about to come or go."""
    return bool(app.rebalancing_count and not app.rebalancing and not app.should_stop)
