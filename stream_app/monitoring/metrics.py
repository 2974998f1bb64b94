"""Metrics: what a worker exports to Prometheus, in its own registry.

Gauges read the worker's state when they are scraped. Steps, answers, dead letters and records leave
no such state and are counted as they happen, by callbacks. No label names a stream: there may be
thousands.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from stream_app.monitoring.memory import MemorySampler
from stream_app.runtime.retry import Health
from stream_app.scoring.scorer import Scorer
from xl3m_core import Answer

FILL_BUCKETS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25)
SECONDS_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0)
OUTCOMES = ("complete", "partial", "refused")


class Metrics:
    """One per worker; several workers in one process have separate metrics. The callbacks count:
    dead_letter, skipped (empty records), missing_key_field, unparsed_time."""

    def __init__(self, scorer: Scorer, health: Health, memory: MemorySampler) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._add_gauges(scorer, health, memory)
        self._step_fill = self._histogram(
            "xl3m_step_fill_ratio", "Tokens of a scoring step over the step's size", FILL_BUCKETS
        )
        self._step_seconds = self._histogram(
            "xl3m_step_seconds", "Time the model took for a scoring step", SECONDS_BUCKETS
        )
        self._query_seconds = self._histogram(
            "xl3m_query_seconds", "Time from the start of a query to its answer", SECONDS_BUCKETS
        )
        self._queries = Counter(
            "xl3m_queries",
            "Queries answered: complete, partial (not all was scored in time), or refused",
            ["outcome"],
            registry=self.registry,
        )
        for label in OUTCOMES:  # exports each outcome at 0 before its first query
            self._queries.labels(label)
        self._skipped_segments = Counter(
            "xl3m_skipped_segments",
            "Segments that retention deleted before the model read them, over all questions",
            registry=self.registry,
        )
        self.dead_letter = self._counter("xl3m_dead_letters", "Events that could not be used")
        self.skipped = self._counter(
            "xl3m_skipped_records", "Records without content: null or empty values and texts"
        )
        self.missing_key_field = self._counter(
            "xl3m_missing_key_fields", "Records without the field or header that names their stream"
        )
        self.unparsed_time = self._counter(
            "xl3m_unparsed_times",
            "Records whose time could not be parsed, so Kafka's timestamp was used",
        )

    def observe_step(self, fill: float, seconds: float) -> None:
        """A scoring step was done. fill: its tokens over its size."""
        self._step_fill.observe(fill)
        self._step_seconds.observe(seconds)

    def skipped_segments(self, count: int) -> None:
        """Retention deleted so many segments before the model read them."""
        self._skipped_segments.inc(count)

    def observe_answer(self, answer: Answer, seconds: float) -> None:
        """A query was answered or refused."""
        self._query_seconds.observe(seconds)
        self._queries.labels(outcome(answer)).inc()

    def _add_gauges(self, scorer: Scorer, health: Health, memory: MemorySampler) -> None:
        streams, segment_tokens = scorer.streams, scorer.engine.method.segment_tokens
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "xl3m_lag_tokens": (
                "Tokens ingested and not yet scored, over all standing questions",
                lambda: streams.lag() * segment_tokens,
            ),
            "xl3m_unread_segments": (
                "Retained segments that the model has not read, over all standing questions",
                lambda: streams.totals.unread,
            ),
            "xl3m_streams_tracked": (
                "Streams this worker owns or answers a query about",
                lambda: len(streams.tracked),
            ),
            "xl3m_min_coverage_ratio": (
                "Lowest coverage of any standing question; NaN without one",
                streams.totals.coverage,
            ),
            "xl3m_missing_offsets": (
                "Missing offsets of the streams this worker owns",
                lambda: streams.totals.missing_offsets,
            ),
            "xl3m_redis_memory_bytes": (
                "Redis memory of the streams this worker owns, estimated from some of them",
                lambda: memory.total,
            ),
            "xl3m_redis_largest_stream_bytes": (
                "Redis memory of the largest of these streams",
                lambda: memory.largest,
            ),
            "xl3m_partitions_blocked": (
                "Partitions that need an operator, and the group if it refuses this worker",
                lambda: len(health.blocked),
            ),
            "xl3m_redis_retrying_operations": (
                "Operations being retried on Redis or the schema registry",
                lambda: len(health.retrying),
            ),
        }
        for name, (description, read) in gauges.items():
            Gauge(name, description, registry=self.registry).set_function(read)

    def _counter(self, name: str, description: str) -> Callable[[], None]:
        increment: Callable[[], None] = Counter(name, description, registry=self.registry).inc
        return increment

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, description, buckets=buckets, registry=self.registry)


def outcome(answer: Answer) -> str:
    """One of OUTCOMES."""
    if answer.error is not None:
        return "refused"
    return "complete" if answer.coverage >= 1 else "partial"
