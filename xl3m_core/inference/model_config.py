"""Fitting: what a model's files say of themselves, taken only if it can be true.

A wrong number would be found out late, as garbage in an answer or an error deep in the network; so
each raises ModelError at once. Knows a config, a tokenizer, an embedding; runs nothing.
"""

from typing import Any

from xl3m_core.errors import ModelError

TEMPLATE = "\nQuestion: {question}\nAnswer:"
"""What is put behind a segment, unless the model's config names its own wording."""

TEMPLATE_KEY = "xl3m_question_template"
K_KEY = "xl3m_k"
"""How many segments a model reads well, if its config says so."""

# The number of places a model has, and what is only the length it was trained on.
_POSITION_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx")
_NAMES = (*_POSITION_FIELDS[:2], "max_seq_len", "seq_length", "n_ctx")


def context_window(config: Any, tokenizer: Any, asked: int | None = None) -> int:
    """The model's window in tokens: as asked for, else from its config, else its tokenizer's."""
    if asked:
        _check_window(config, asked)
        return asked
    for window in [*(getattr(config, name, None) for name in _NAMES), tokenizer.model_max_length]:
        if isinstance(window, int) and 0 < window < 10**9:
            return window
    raise ModelError(f"{config.model_type} does not say how long its window is: give one")


def _check_window(config: Any, asked: int) -> None:
    places = next((n for n in _POSITION_FIELDS if isinstance(getattr(config, n, None), int)), None)
    if places is None or getattr(config, "alibi", False):
        return  # a running state, or distances: as long as one likes
    most = max(getattr(config, places), *_scaled(config, getattr(config, places)), 0)
    if asked > most:
        raise ModelError(
            f"a window of {asked} tokens is asked for, but this {config.model_type} reads {most} "
            f"at most ({places} in its config): ask for no more, or say there how its places are "
            "scaled (rope_parameters)"
        )


def _scaled(config: Any, places: int) -> list[int]:
    """How far scaled places reach; there may be several kinds of layers."""
    ropes = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [ropes, *(kind for kind in ropes.values() if isinstance(kind, dict))]
    return [
        int((kind.get("original_max_position_embeddings") or places) * kind["factor"])
        for kind in kinds
        if kind.get("rope_type", "default") != "default" and kind.get("factor")
    ] + [0]


def question_template(config: Any) -> str:
    """The model's wording of a question."""
    template = getattr(config, TEMPLATE_KEY, None) or TEMPLATE
    if not isinstance(template, str) or "{question}" not in template:
        raise ModelError(
            f"{TEMPLATE_KEY} in the model's config is {template!r}: it must be a text with "
            "{question} where the question goes"
        )
    return template


def recommended_k(config: Any) -> int | None:
    """How many segments the model reads well, if it says so."""
    k = getattr(config, K_KEY, None)
    if k is None or (type(k) is int and k > 0):
        return k
    raise ModelError(f"{K_KEY} in the model's config is {k!r}: it must be a number from 1")


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """That the model has numbers for every token there is."""
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    weight = getattr(embedding, "weight", None)
    last = max(tokenizer.get_vocab().values(), default=0)
    if weight is not None and last >= len(weight):
        raise ModelError(
            f"the tokenizer has tokens up to {last}, but the model reads {len(weight)} of them, "
            f"from 0 to {len(weight) - 1}: they are not of one model"
        )
