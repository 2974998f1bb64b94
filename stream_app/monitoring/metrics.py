"""Metrics: what a worker tells Prometheus of itself, in a registry of its own.

What the worker's state shows is read off it when somebody asks; steps, answers and dead letters
leave no trace there and are told as they happen. No label names a stream: there may be
thousands. Knows the parts of a worker; not who asks, nor how.
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
    """One per worker; several in one process have nothing in common."""

    def __init__(self, scoring: Scorer, health: Health, weights: MemorySampler) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._read_off(scoring, health, weights)
        self._fill = self._histogram(
            "xl3m_step_fill_ratio", "Tokens of a scoring step over its size", FILL_BUCKETS
        )
        self._score_seconds = self._histogram(
            "xl3m_step_seconds", "How long the model was at one step", SECONDS_BUCKETS
        )
        self._query_seconds = self._histogram(
            "xl3m_query_seconds", "From a query's start to its answer", SECONDS_BUCKETS
        )
        self._queries = Counter(
            "xl3m_queries",
            "Queries answered: complete, partial (not all was scored in time), or refused",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in OUTCOMES:  # so that each is there, at 0, before its first query
            self._queries.labels(outcome)
        buried = Counter("xl3m_dead_letters", "Events that were unusable", registry=self.registry)
        self.dead_letter: Callable[[], None] = buried.inc
        self.skipped = self._counter(
            "xl3m_skipped_records", "Records that say nothing: null or empty values and texts"
        )
        self.missing_key_field = self._counter(
            "xl3m_missing_key_fields", "Records without the field or header that names their stream"
        )
        self.unparsed_time = self._counter(
            "xl3m_unparsed_times",
            "Records whose time was not understood, so Kafka's was taken",
        )

    def stepped(self, fill: float, seconds: float) -> None:
        """A step went through the model."""
        self._fill.observe(fill)
        self._score_seconds.observe(seconds)

    def answered(self, answer: Answer, seconds: float) -> None:
        """A query has its answer."""
        self._query_seconds.observe(seconds)
        self._queries.labels(outcome_of(answer)).inc()

    def _read_off(self, scoring: Scorer, health: Health, weights: MemorySampler) -> None:
        streams, segment_tokens = scoring.streams, scoring.engine.method.segment_tokens
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "xl3m_lag_tokens": (
                "Tokens read and not yet scored, over all standing questions",
                lambda: streams.lag() * segment_tokens,
            ),
            "xl3m_streams_tracked": (
                "Streams this worker owns, or answers a query about",
                lambda: len(streams.tracked),
            ),
            "xl3m_min_coverage_ratio": (
                "The least share scored for any standing question; NaN without one",
                streams.totals.coverage,
            ),
            "xl3m_missing_offsets": (
                "Offsets that never came, on the streams this worker owns",
                lambda: streams.totals.missing_offsets,
            ),
            "xl3m_redis_memory_bytes": (
                "Redis memory of the streams this worker owns, judged by some",
                lambda: weights.total,
            ),
            "xl3m_redis_largest_stream_bytes": (
                "The most that one of them was seen to take",
                lambda: weights.largest,
            ),
            "xl3m_partitions_blocked": (
                "Partitions that wait for a person, and the group if it refuses this worker",
                lambda: len(health.blocked),
            ),
            "xl3m_redis_retrying_operations": (
                "Steps that wait for Redis or the schema registry",
                lambda: len(health.retrying),
            ),
        }
        for name, (what, read) in gauges.items():
            Gauge(name, what, registry=self.registry).set_function(read)

    def _counter(self, name: str, what: str) -> Callable[[], None]:
        count: Callable[[], None] = Counter(name, what, registry=self.registry).inc
        return count

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, what, buckets=buckets, registry=self.registry)


def outcome_of(answer: Answer) -> str:
    """One of OUTCOMES."""
    if answer.error is not None:
        return "refused"
    return "complete" if answer.coverage >= 1 else "partial"
