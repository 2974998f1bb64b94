"""Bounds: from where to where each number among the settings can be used.

What is beyond them would be taken and then end a worker, or keep it from ever reading: timers,
Redis' clock and Kafka's 32-bit sizes have ends of their own. Knows numbers; not who uses them.
"""

from typing import NamedTuple

from stream_app.errors import SettingsError
from stream_app.variables import variable

MAX_DEADLINE = 90.0
"""Seconds. Partitions cannot change hands while a query of theirs is open, so none is for long."""

EXACT = 2**53 - 1
"""Beyond this neither Redis' scripts nor floats count exactly."""
WEEK, YEAR = 7 * 86_400, 365 * 86_400
EVENT_BYTES = 256 << 20
"""Four of them are asked for at a time, in Kafka's signed 32 bits; Redis takes half a gigabyte."""
TOKENS = 1 << 24
"""More than any model reads; sizes that do not fit its window are refused with the numbers."""


class Limits(NamedTuple):
    """Both may be had."""

    least: float
    most: float = EXACT


BOUNDS = {
    "context_window": Limits(0, TOKENS),
    "segment_tokens": Limits(0, TOKENS),
    "overlap_tokens": Limits(-1, TOKENS),
    "question_tokens": Limits(0, TOKENS),
    "answer_tokens": Limits(0, TOKENS),
    "k": Limits(0, TOKENS),
    "batch_tokens": Limits(1, TOKENS),
    "step_target_ms": Limits(1, 3_600_000),
    "prefix_cache_mb": Limits(0, 1 << 24),
    "max_lag_tokens": Limits(1),
    "retention_segments": Limits(1),
    "retention_bytes": Limits(1),
    "query_deadline_seconds": Limits(0, MAX_DEADLINE),
    "adhoc_ttl_seconds": Limits(1, YEAR),
    "max_event_bytes": Limits(1, EVENT_BYTES),
    "max_batch_bytes": Limits(1, 2**31 - 1),
    "max_streams": Limits(1),
    "max_standing_questions": Limits(1),
    "max_adhoc_questions": Limits(1),
    "session_timeout_seconds": Limits(6, 150),  # brokers refuse less; a rebalance waits for so long
    "watchdog_seconds": Limits(1, WEEK),
    "shutdown_timeout_seconds": Limits(1, WEEK),
    "http_port": Limits(0, 65_535),
}


def check_number(name: str, value: float, limits: Limits) -> None:
    """Raise SettingsError if the number is beyond them; NaN always is."""
    if not limits.least <= value <= limits.most:
        most = "2^53" if limits.most == EXACT else f"{limits.most:.0f}"
        raise SettingsError(f"{variable(name)} must be from {limits.least:.0f} to {most}")
