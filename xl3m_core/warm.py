"""WarmPrompts: keys and values of prompts the model has read, for prompts that begin the same.

A key context changes by a segment at a time, and a question is asked again: most of the next
prompt was in the last one. Knows token ids and a cache's tensors; no text.
"""

from collections.abc import Sequence
from typing import Any

from transformers.cache_utils import DynamicCache, DynamicLayer

LEAST = 16
"""Tokens; for a shorter common start, or less than half of it, no prompt is given up."""


class WarmPrompts:
    """So many bytes of caches at most; what was used least lately goes first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.caches: dict[tuple[int, ...], Any] = {}

    def take(self, prompt: Sequence[int]) -> Any:
        """A cache of what the prompt begins with, as far as any has it, and never all of it: the
        last token is to be read. It is the caller's from now on; see `keep`."""
        shared = {ids: _common(ids, prompt) for ids in self.caches}
        best = max(shared, key=lambda ids: (shared[ids], -len(ids)), default=())
        if shared.get(best, 0) < max(LEAST, len(best) // 2):
            return DynamicCache()
        return _cropped(self.caches.pop(best), min(shared[best], len(prompt) - 1))

    def keep(self, prompt: Sequence[int], cache: Any) -> None:
        """Keep a cache that has read the prompt, and perhaps what was generated behind it."""
        if not all(type(layer) is DynamicLayer for layer in cache.layers):
            return
        cache = _cropped(cache, len(prompt))
        self.caches.pop(tuple(prompt), None)
        if _bytes(cache) > self.max_bytes:
            return
        self.caches[tuple(prompt)] = cache
        while self.bytes > self.max_bytes:
            del self.caches[next(iter(self.caches))]

    @property
    def bytes(self) -> int:
        """What all of it takes."""
        return sum(map(_bytes, self.caches.values()))


def _bytes(cache: Any) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    differ = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


def _cropped(cache: Any, tokens: int) -> Any:
    """The cache without what comes after its first tokens, if there is anything."""
    if (more := cache.get_seq_length() - tokens) > 0:
        cache.crop(-more)
    return cache
