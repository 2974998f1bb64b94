"""Creates the engine from the settings: which model, and which sizes of the method."""

import logging
import time
from typing import Any

import transformers

from stream_app.settings import Settings
from stream_app.settings.variables import variable
from xl3m_core import Engine, LanguageModel
from xl3m_core.inference.loading import BUNDLED_MODEL

logger = logging.getLogger("xl3m")

MAX_WATCHDOG_SHARE = 0.1
"""A forward may take at most this share of the time after which the watchdog ends a worker."""
PROBE_TOKENS = 64


def create_engine(settings: Settings) -> Engine:
    """Load the model and fit the method to its window. Raises ModelError and MethodError."""
    logging_: Any = transformers.utils.logging
    logging_.disable_progress_bar()  # of loading the weights
    model = LanguageModel.load(
        settings.model or BUNDLED_MODEL,
        window=settings.context_window or None,
        dtype=settings.dtype or None,
        prefix_cache_bytes=settings.prefix_cache_mb << 20,
    )
    method = settings.method(model.window, model.k, model.measure)
    row = 1 + method.segment_tokens + method.question_tokens
    return Engine(model, method, batch_tokens(settings, row, tokens_per_second(model)))


def description(engine: Engine) -> str:
    """The sizes that follow from the model and the settings, for a log line."""
    model, method = engine.model, engine.method
    return f"window {model.window}, segments of {method.segment_tokens} tokens, k {method.k}"


def batch_tokens(settings: Settings, row: int, speed: float) -> int:
    """`XL3M_BATCH_TOKENS`, or fewer on a slow model, so that the watchdog does not take one forward
    for a stuck worker; at least one row. row: tokens of the longest row; speed: tokens a second."""
    limit = max(row, int(speed * settings.watchdog_seconds * MAX_WATCHDOG_SHARE))
    if settings.batch_tokens <= limit:
        return settings.batch_tokens
    logger.warning(
        "the model reads about %.0f tokens a second on this machine: batches have at most %d "
        "tokens instead of %d (%s), so that a forward does not come near the %g s of %s",
        speed, limit, settings.batch_tokens, variable("batch_tokens"),
        settings.watchdog_seconds, variable("watchdog_seconds"),
    )  # fmt: skip
    return limit


def tokens_per_second(model: LanguageModel) -> float:
    """About how fast the model reads, by the faster of two small forwards: the time of a slow model
    grows with its tokens, and the overhead of a fast one does not matter here."""
    row = [1] * min(PROBE_TOKENS, model.window)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        model.logits([row], 1).argmax().item()  # waits for a GPU, too
        seconds.append(time.perf_counter() - started)
    return len(row) / max(min(seconds), 1e-6)
