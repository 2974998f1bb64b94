"""The engine that settings ask for: which model, and which method on it. Knows no stream."""

from typing import Any

import transformers

from stream_app.settings import Settings
from xl3m_core import Engine, LanguageModel
from xl3m_core.loading import SMALL


def create_engine(settings: Settings) -> Engine:
    """Load the model and fit the method to its window. Raises ModelError and MethodError."""
    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()  # loading is not what a command is about
    model = LanguageModel.load(
        settings.model or SMALL,
        window=settings.window or None,
        dtype=settings.dtype or None,
        warm_bytes=settings.warm_mb << 20,
    )
    return Engine(model, settings.method(model.window, model.k), settings.batch_tokens)


def description(engine: Engine) -> str:
    """The numbers that the model and the settings came to."""
    model, method = engine.model, engine.method
    return f"window {model.window}, segments of {method.segment_tokens} tokens, k {method.k}"
