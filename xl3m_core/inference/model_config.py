"""Window, question template and k from a model's files, checked before anything runs.

A wrong number would show up late, as garbage in an answer or an error deep in the network; so each
function raises ModelError at once.
"""

from typing import Any, TypeVar

from xl3m_core.errors import ModelError
from xl3m_core.method import (
    ANSWER_MODES,
    AUTO_ANSWER,
    DEFAULT_MEASURE,
    MEASURES,
    AnswerMode,
    Measure,
)

T = TypeVar("T")

TEMPLATE = "\nQuestion: {question}\nAnswer:"
"""The text after a segment, unless the model's config has its own under `TEMPLATE_KEY`."""

TEMPLATE_KEY = "xl3m_question_template"
K_KEY = "xl3m_k"
"""Config key of the number of segments from which a model answers best."""
MEASURE_KEY = "xl3m_measure"
"""Config key of the measure by which a model finds most."""

ANSWER_KEY = "xl3m_answer"
"""Config key of how a model answers best: `free`, `extract`, or `auto`, by text and question."""
SMALL_READER = 1_000_000_000
"""Parameters from which a model writes its answers unless told otherwise. With 135M the right span
is chosen far more often than it is written (docs/experiments.md); nothing from 1B on was measured
here."""

# Fields with the number of position embeddings; the other names are the training length only.
_POSITION_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx")
_NAMES = (*_POSITION_FIELDS[:2], "max_seq_len", "seq_length", "n_ctx")


def context_window(config: Any, tokenizer: Any, requested: int | None = None) -> int:
    """The model's window in tokens: as requested, else from its config, else its tokenizer's.

    Raises ModelError if the model cannot read that many, or if no file says how many it can.
    """
    if requested:
        _check_window(config, requested)
        return requested
    for window in [*(getattr(config, name, None) for name in _NAMES), tokenizer.model_max_length]:
        if isinstance(window, int) and 0 < window < 10**9:
            return window
    raise ModelError(f"{config.model_type} does not say how long its window is: set one")


def _check_window(config: Any, requested: int) -> None:
    field = next((n for n in _POSITION_FIELDS if isinstance(getattr(config, n, None), int)), None)
    if field is None or getattr(config, "alibi", False):
        return  # a running state, or relative distances: any length
    longest = max(getattr(config, field), *_scaled(config, getattr(config, field)), 0)
    if requested > longest:
        raise ModelError(
            f"a window of {requested} tokens was requested, but this {config.model_type} reads "
            f"{longest} at most ({field} in its config): request no more, or set in its config how "
            "its positions are scaled (rope_parameters)"
        )


def _scaled(config: Any, positions: int) -> list[int]:
    """The number of scaled positions, for each kind of layer."""
    ropes = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [ropes, *(kind for kind in ropes.values() if isinstance(kind, dict))]
    return [
        int((kind.get("original_max_position_embeddings") or positions) * kind["factor"])
        for kind in kinds
        if kind.get("rope_type", "default") != "default" and kind.get("factor")
    ] + [0]


def question_template(config: Any) -> str:
    """The model's question template. Raises ModelError if there is no {question} in it."""
    template = getattr(config, TEMPLATE_KEY, None) or TEMPLATE
    if not isinstance(template, str) or "{question}" not in template:
        raise ModelError(
            f"{TEMPLATE_KEY} in the model's config is {template!r}: it must be a text with "
            "{question} in the place of the question"
        )
    return template


def recommended_k(config: Any) -> int | None:
    """From how many segments the model answers best, if its config says so. Raises ModelError."""
    k = getattr(config, K_KEY, None)
    if k is None or (type(k) is int and k > 0):
        return k
    raise ModelError(f"{K_KEY} in the model's config is {k!r}: it must be a number from 1")


def recommended_measure(config: Any) -> Measure:
    """The measure by which a model finds most, if its config says so. Raises ModelError."""
    return _one_of(MEASURES, config, MEASURE_KEY, DEFAULT_MEASURE)


def recommended_answer(config: Any, parameters: int) -> AnswerMode:
    """How the model answers best: as its config says, else by its size. Raises ModelError."""
    default: AnswerMode = AUTO_ANSWER if parameters < SMALL_READER else "free"
    return _one_of(ANSWER_MODES, config, ANSWER_KEY, default)


def _one_of(choices: tuple[T, ...], config: Any, key: str, default: T) -> T:
    """What the config says under a key. Raises ModelError if that is none of the choices."""
    named: T = getattr(config, key, default)
    if named not in choices:
        raise ModelError(f"{key} in the model's config is {named!r}: choose one of {choices}")
    return named


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Raise ModelError unless the model has an embedding for every token."""
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    weight = getattr(embedding, "weight", None)
    last = max(tokenizer.get_vocab().values(), default=0)
    if weight is not None and last >= len(weight):
        raise ModelError(
            f"the tokenizer has tokens up to {last}, but the model has embeddings for 0 to "
            f"{len(weight) - 1} only: they do not belong to the same model"
        )
