"""create_app: builds the parts of a worker and connects them. No other module does.

Parts get their callbacks in their constructors. A `lambda` stands for a part that is built later.
"""

import sys
import time

from stream_app.engine import create_engine
from stream_app.formats.notes import Notes
from stream_app.ingest.buffers import PartitionBuffers
from stream_app.ingest.partitions import Assignment
from stream_app.ingest.questions import QuestionsAgent
from stream_app.ingest.rebalance import RebalanceListener
from stream_app.ingest.segmentation import SegmentationCheck
from stream_app.ingest.tokens import Ingest, max_buffer_bytes
from stream_app.kafka.dead_letters import DeadLetterLog, dead_letter_sender
from stream_app.kafka.faust_app import (
    App,
    add_agent,
    add_early_service,
    add_service,
    create_faust,
    on_assigned,
    raw_topic,
    topic_sender,
)
from stream_app.kafka.topic_pattern import TopicPattern, subscriber
from stream_app.kafka.topics import TOPICS
from stream_app.monitoring.http import MonitoringServer
from stream_app.monitoring.memory import MemorySampler
from stream_app.monitoring.metrics import Metrics
from stream_app.monitoring.readiness import Readiness
from stream_app.queries.answering import Answering
from stream_app.queries.kafka import QueriesAgent
from stream_app.queries.prefetch import PromptPrefetcher
from stream_app.queries.pubsub import PubSubServer
from stream_app.runtime.retry import Health
from stream_app.runtime.watchdog import Watchdog
from stream_app.scoring.changes import ChangeListener
from stream_app.scoring.prefilter import Prefilter
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.settings.offset_reset import parse_start
from stream_app.store.connection import connect
from stream_app.store.store import StreamStore
from xl3m_core import Engine


def create_app(settings: Settings, engine: Engine | None = None) -> App:
    """A Faust app that is a complete worker: run it with `faust.Worker`.

    engine: in place of the one that the settings describe. Raises ModelError or MethodError if the
    model cannot be loaded or its context window is too small, and SettingsError as `create_faust`.
    """
    engine = engine or create_engine(settings)
    health = Health()
    store = StreamStore.from_settings(settings, connect(settings.redis), health)
    token_topics = set(settings.tokens_topics)
    app = create_faust(
        settings,
        batched_topics=token_topics,
        ingest_idle=lambda: ingest.idle(),
        blocked=health.blocked,
    )
    topics = {name: raw_topic(app, *names) for name, names in _names(settings).items()}
    # PartitionBuffers limit memory by partition; Faust's own limit would block all for one.
    topics["tokens"].maxsize = sys.maxsize

    scorer = Scorer(
        engine,
        store,
        settings.max_lag_tokens,
        settings.step_target_ms / 1000,
        Prefilter(settings.redis, store.keys),
        on_change=lambda stream, qid: prefetcher.mark_stale(stream, qid),
        on_step=lambda fill, seconds: metrics.observe_step(fill, seconds),
        on_room=lambda: buffers.wake(),
        triage=settings.on_lag == "triage",
        on_skipped=lambda count: metrics.skipped_segments(count),
    )
    memory = MemorySampler(store, scorer.streams)
    metrics = Metrics(scorer, health, memory)
    dead_letter_log = DeadLetterLog()
    dead_letter = dead_letter_sender(
        topic_sender(topics["dead_letters"]), metrics.dead_letter, dead_letter_log
    )

    start = parse_start(settings.start, time.time())
    tokens = Assignment(store, settings.tokens_topic, token_topics, start)
    buffers = PartitionBuffers(
        max_buffer_bytes(settings),
        tokens.name,
        scorer.throttled_partitions,
        pause=app.pause_partition,
        resume=app.resume_partition,
        discard=app.discard,
    )
    app.clear_when_revoked(buffers)
    notes = Notes(metrics.skipped, metrics.missing_key_field, metrics.unparsed_time)
    ingest = Ingest(settings, engine, store, tokens, buffers, scorer, dead_letter, health, notes)
    questions = Assignment(store, settings.questions_topic)
    questions_agent = QuestionsAgent(settings, questions, scorer, dead_letter)
    listener = RebalanceListener(app, ingest, questions, scorer, health)
    on_assigned(app, listener.on_assigned)

    prefetcher = PromptPrefetcher(engine, store, scorer)
    answering = Answering(
        settings, engine, store, scorer, prefetcher, on_answer=metrics.observe_answer
    )
    queries_agent = QueriesAgent(
        settings,
        answering,
        topic_sender(topics["answers"]),
        dead_letter,
        app.shutdown,
        on_skipped=metrics.skipped,
    )
    pubsub = PubSubServer(
        settings,
        store,
        answering,
        health,
        app.shutdown,
        log=dead_letter_log,
        on_skipped=metrics.skipped,
    )
    changes = ChangeListener(
        store, scorer.streams, health, (tokens.check_positions, questions.check_positions)
    )

    add_agent(app, topics["tokens"], ingest.run, "tokens")
    add_agent(app, topics["questions"], questions_agent.run, "questions")
    add_agent(app, topics["queries"], queries_agent.run, "queries")
    topic_pattern = TopicPattern(settings, token_topics, subscriber(app, topics["tokens"]))
    watchdog = _watchdog(settings, app, ingest, scorer, health)
    segmentation = SegmentationCheck(engine, store)
    for service in (
        scorer, prefetcher, changes, pubsub, watchdog, memory, dead_letter_log, topic_pattern,
        segmentation,
    ):  # fmt: skip
        add_service(app, service)
    if settings.http_port:
        ready = Readiness(settings, store, health, lambda: app.is_assigned)
        add_early_service(
            app,
            MonitoringServer(
                settings.http_host, settings.http_port, metrics.registry, ready.reasons
            ),
        )
    return app


def _names(settings: Settings) -> dict[str, list[str]]:
    """The topics of each kind."""
    names = {name: [getattr(settings, f"{name}_topic")] for name in TOPICS}
    return names | {"tokens": sorted(settings.tokens_topics)}


def _watchdog(
    settings: Settings, app: App, ingest: Ingest, scorer: Scorer, health: Health
) -> Watchdog:
    """Work is expected unless Redis is down; a rebalance in progress is work."""
    return Watchdog(
        settings.watchdog_seconds,
        progress=lambda: (ingest.batches, scorer.model_calls, scorer.steps, app.rebalancing),
        busy=lambda: (
            (health.ok or app.should_stop) and (ingest.working or scorer.working or app.rebalancing)
        ),
    )
