"""Baselines that read the text into the model's key-value cache, chunk by chunk.

StreamingLLM (arXiv 2309.17453) keeps the first and the latest tokens, with positions counted
within the cache. The others keep all tokens, at positions the model never saw in training, either
unchanged or with RoPE rescaled. Uses internals of transformers' models.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from xl3m_core import LanguageModel, ModelError
from xl3m_core.inference.generation import forward

SINKS = 4
CHUNK = 64
"""Tokens read at once: small beside a window, so that a cache of that size stays nearly full."""


class CachedText:
    """A text as the model's keys and values: all of it, or the attention sinks and the latest."""

    def __init__(
        self, model: LanguageModel, size: int | None = None, sinks: int = SINKS, chunk: int = CHUNK
    ) -> None:
        """size: the most tokens that are kept, which set the positions; None: no limit."""
        self.model, self.size, self.sinks, self.chunk = model, size, sinks, chunk
        self.ids = list[int]()
        self.cache: Any = DynamicCache()
        if size is not None:
            _check_moves(model)

    def read(self, ids: Iterable[int]) -> Tensor:
        """Append tokens to the cache, and return the logits (V,) of the next one."""
        logits = torch.empty(0)
        for chunk in in_chunks(ids, self.chunk):
            self._make_room(len(chunk))
            logits = self._forward(chunk)
        return logits

    def answer(self, question: Sequence[int], max_tokens: int) -> tuple[str, list[int]]:
        """Read the question and decode greedily: the answer, and the tokens kept when it began.

        The cache is left unchanged.
        """
        before, ids = self._layers(), self.ids
        logits = self.read(question)
        kept = self.ids[: len(self.ids) - len(question)]
        answer = self._continue(logits, max_tokens)
        self.ids = ids
        self._restore(before)
        return answer, kept

    @torch.inference_mode()
    def _forward(self, ids: list[int]) -> Tensor:
        """Read more tokens; transformers gives them the positions after those in the cache."""
        self.ids = self.ids + ids
        row = torch.tensor([ids], device=self.model.model.device)
        logits = forward(self.model.model, self.cache, row)
        if self.cache.get_seq_length() != len(self.ids):
            raise ModelError(
                f"{self.model.config.model_type} has no plain cache of keys and values"
            )
        return logits

    def _continue(self, logits: Tensor, max_tokens: int) -> str:
        """Greedy decoding like `LanguageModel.generate`, on this cache."""
        answer, ends = list[int](), self.model.eos_token_ids
        while len(answer) < max_tokens:
            token = int(logits.argmax())
            if token in ends:
                break
            answer.append(token)
            if not self.model.has_chat_template and "\n" in self.model.decode(answer).lstrip():
                break
            logits = self.read([token])
        return self.model.decode(answer).strip()

    def _make_room(self, tokens: int) -> None:
        """Drop tokens right after the sinks, and move the later ones to their positions.

        s s s s x x x r r r   ->   s s s s r r r
        0 1 2 3 4 5 6 7 8 9        0 1 2 3 4 5 6
        """
        drop = 0 if self.size is None else len(self.ids) + tokens - self.size
        if drop <= 0:
            return
        rest = self.sinks + drop
        for layer in self.cache.layers:
            layer.values = _without(layer.values, self.sinks, rest)
            moved = moved_up(self.model, layer.keys[..., rest:, :], drop)
            layer.keys = torch.cat([layer.keys[..., : self.sinks, :], moved], dim=-2)
        self.ids = self.ids[: self.sinks] + self.ids[rest:]

    def _layers(self) -> list[tuple[Tensor, Tensor]]:
        """The keys and values of now; empty if truncating the cache restores them."""
        return [] if self.size is None else [(x.keys, x.values) for x in self.cache.layers]

    def _restore(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        length = len(self.ids)
        for layer in self.cache.layers if self.size is None else ():
            layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]
        for layer, (keys, values) in zip(self.cache.layers, layers, strict=False):
            layer.keys, layer.values = keys, values


def in_chunks(ids: Iterable[int], size: int) -> Iterator[list[int]]:
    """The ids in lists of `size`; the last one may be shorter."""
    left = iter(ids)
    while chunk := [token for _, token in zip(range(size), left, strict=False)]:
        yield chunk


# --- RoPE ---------------------------------------------------------------------------------


def moved_up(model: LanguageModel, keys: Tensor, by: int) -> Tensor:
    """Keys (..., T, D) as they would be `by` positions earlier."""
    angles = by * _rotary(model)[1].inv_freq.float()
    cos, sin = (torch.cat([wave, wave]) for wave in (angles.cos(), angles.sin()))
    turned, rest = keys[..., : len(cos)].float(), keys[..., len(cos) :]
    left, right = turned.chunk(2, dim=-1)
    turned = turned * cos - torch.cat([-right, left], dim=-1) * sin
    return torch.cat([turned.to(keys.dtype), rest], dim=-1)


def extend(model: LanguageModel, kind: str, tokens: int) -> None:
    """Rescale RoPE for that many tokens: "default" (unchanged), "dynamic" or "yarn"."""
    window, config = model.window, copy.deepcopy(model.config)
    was = dict(config.rope_parameters)
    factor = tokens / window
    if kind == "yarn" and factor > 1:
        given = {"factor": factor, "original_max_position_embeddings": window}
        config.rope_parameters = was | given | {"rope_type": "yarn"}
    elif kind == "dynamic" and factor > 1:
        config.rope_parameters = was | {"rope_theta": dynamic_base(config, factor)}
    name, rotary = _rotary(model)
    parent, _, child = name.rpartition(".")
    fresh = type(rotary)(config).to(model.model.device)
    setattr(model.model.get_submodule(parent), child, fresh)


def dynamic_base(config: Any, factor: float) -> float:
    """The base of transformers' "dynamic" RoPE at a length of `factor` windows.

    It is set once for the whole text: if it grew, the cache would hold keys of many bases.
    """
    rope = config.rope_parameters
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dim = int(head * rope.get("partial_rotary_factor", 1.0))
    grown = factor * factor - (factor - 1)
    return float(rope["rope_theta"] * grown ** (dim / (dim - 2)))


def _rotary(model: LanguageModel) -> tuple[str, Any]:
    """The name of the model's only rotary module, and the module. Raises ModelError without one."""
    found: list[tuple[str, Any]] = [
        pair for pair in model.model.named_modules() if hasattr(pair[1], "inv_freq")
    ]
    if len(found) != 1:
        raise ModelError(f"{model.config.model_type} has no single rotary embedding to rescale")
    return found[0]


@torch.inference_mode()
def _check_moves(model: LanguageModel) -> None:
    """Check `moved_up` against the model's first layer. Raises ModelError if they differ."""
    cache: Any = DynamicCache()
    row = torch.tensor([[1, 2, 3, 1, 2, 3]], device=model.model.device)
    model.model(row, past_key_values=cache, use_cache=True)
    keys = cache.layers[0].keys
    first, second = keys[..., :3, :], moved_up(model, keys[..., 3:, :], 3)
    rounding = 1e-3 if keys.dtype == torch.float32 else 0.05
    if (first - second).abs().max() > rounding * first.abs().max():
        raise ModelError(f"{model.config.model_type} rotates its keys in a way unknown here")


# --- prompts ------------------------------------------------------------------------------


def frame(model: LanguageModel) -> tuple[list[int], list[int]]:
    """The token ids that the model's prompt puts before and after its content."""
    one, other = model.prompt("0"), model.prompt("x")
    head = [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))]
    return head, one[len(head) + len(model.encode(["0"])[0]) :]


def _without(states: Tensor, start: int, end: int) -> Tensor:
    return torch.cat([states[..., :start, :], states[..., end:, :]], dim=-2)
