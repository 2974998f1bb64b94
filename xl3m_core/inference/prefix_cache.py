"""PrefixCache: keys and values of prompts the model has read, for prompts with the same beginning.

A key context changes by one segment at a time, and questions are asked again: most of the next
prompt, or all of it, was in an earlier one. In memory only, with a limit in bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

MIN_SHARED_TOKENS = 16
"""An entry is not used for fewer shared tokens, or for less than half of its own: using it removes
it from the cache."""


@dataclass(slots=True)
class CachedPrefix:
    """The key-value cache of a prompt's first tokens, and, if the whole prompt was read, the
    logits (V,) of its next token."""

    cache: Any = field(default_factory=DynamicCache)
    logits: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Memory of the keys, values and logits."""
        tensors = [tensor for layer in self.cache.layers for tensor in (layer.keys, layer.values)]
        return sum(t.nbytes for t in (*tensors, self.logits) if t is not None)


class PrefixCache:
    """At most `max_bytes` of cached prompts; the least recently used are evicted first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.entries: dict[tuple[int, ...], CachedPrefix] = {}

    def pop_longest(self, prompt: Sequence[int]) -> CachedPrefix:
        """Remove and return the entry that shares the longest beginning with the prompt, cropped to
        that; or an empty one. If the whole prompt was read before, its logits are returned, too;
        else at least one token is left to read. See `insert`."""
        ids = tuple(prompt)
        shared = {entry: shared_tokens(entry, ids) for entry in self.entries}
        best = max(shared, key=lambda entry: (shared[entry], -len(entry)), default=())
        if shared.get(best, 0) < max(MIN_SHARED_TOKENS, len(best) // 2):
            return CachedPrefix()
        cached = self.entries.pop(best)
        if best == ids and cached.logits is not None:
            return cached
        return CachedPrefix(_cropped(cached.cache, min(shared[best], len(ids) - 1)))

    def insert(self, prompt: Sequence[int], cached: CachedPrefix) -> None:
        """Keep the cache of a prompt that was read; generated tokens after it are cropped."""
        if not all(type(layer) is DynamicLayer for layer in cached.cache.layers):
            return
        _cropped(cached.cache, len(prompt))
        self.entries.pop(tuple(prompt), None)
        if cached.bytes > self.max_bytes:
            return
        self.entries[tuple(prompt)] = cached
        while self.bytes > self.max_bytes:
            del self.entries[next(iter(self.entries))]

    @property
    def bytes(self) -> int:
        """Memory of all entries."""
        return sum(cached.bytes for cached in self.entries.values())


def shared_tokens(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many first tokens are the same; by comparing slices, whose tokens are compared in C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _cropped(cache: Any, tokens: int) -> Any:
    """The cache of the first tokens only."""
    if (excess := cache.get_seq_length() - tokens) > 0:
        cache.crop(-excess)
    return cache
