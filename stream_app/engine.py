"""The engine that settings ask for: which model, and which method on it. Knows no stream."""

import logging
import time
from typing import Any

import transformers

from stream_app.settings import Settings
from stream_app.settings.variables import variable
from xl3m_core import Engine, LanguageModel
from xl3m_core.inference.loading import BUNDLED_MODEL

logger = logging.getLogger("xl3m")

# A forward is to take no more of the time after which a worker counts as stuck.
SHARE_OF_STALL = 0.1
TRIED_TOKENS = 64


def create_engine(settings: Settings) -> Engine:
    """Load the model and fit the method to its window. Raises ModelError and MethodError."""
    logging_: Any = transformers.utils.logging
    logging_.disable_progress_bar()  # loading is not what a command is about
    model = LanguageModel.load(
        settings.model or BUNDLED_MODEL,
        window=settings.context_window or None,
        dtype=settings.dtype or None,
        prefix_cache_bytes=settings.prefix_cache_mb << 20,
    )
    method = settings.method(model.window, model.k)
    row = 1 + method.segment_tokens + method.question_tokens
    return Engine(model, method, batch_tokens(settings, row, tokens_a_second(model)))


def description(engine: Engine) -> str:
    """The numbers that the model and the settings came to."""
    model, method = engine.model, engine.method
    return f"window {model.window}, segments of {method.segment_tokens} tokens, k {method.k}"


def batch_tokens(settings: Settings, row: int, speed: float) -> int:
    """`XL3M_BATCH_TOKENS`, or less, a row at least, where a forward of so many would come near to
    the time after which the watchdog takes a slow model for a stuck one."""
    most = max(row, int(speed * settings.watchdog_seconds * SHARE_OF_STALL))
    if settings.batch_tokens <= most:
        return settings.batch_tokens
    logger.warning(
        "the model reads about %.0f tokens a second here: a forward has %d tokens at most instead "
        "of the %d of %s, so as not to count as stuck after %g s (%s)",
        speed, most, settings.batch_tokens, variable("batch_tokens"),
        settings.watchdog_seconds, variable("watchdog_seconds"),
    )  # fmt: skip
    return most


def tokens_a_second(model: LanguageModel) -> float:
    """About how fast it reads, by the better of two small forwards: a slow model's cost is its
    tokens, and what a fast one's overhead hides makes no difference here."""
    row = [1] * min(TRIED_TOKENS, model.window)
    took = []
    for _ in range(2):
        began = time.perf_counter()
        model.logits([row], 1).argmax().item()  # an accelerator is done then as well
        took.append(time.perf_counter() - began)
    return len(row) / max(min(took), 1e-6)
