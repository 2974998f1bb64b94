"""WarmPrompts: keys and values of prompts the model has read, for prompts that begin the same.

A key context changes by a segment at a time, and a question is asked again: most of the next
prompt was in the last one, or all of it. Knows token ids and a cache's tensors; no text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

MIN_SHARED_TOKENS = 16
"""Tokens; for a shorter common start, or less than half of it, no prompt is given up."""


@dataclass(slots=True)
class CachedPrefix:
    """What was read of a prompt: a cache of its first tokens, none so far; and the logits (V,)
    behind the whole of it, if that is what was read."""

    cache: Any = field(default_factory=DynamicCache)
    logits: Tensor | None = None

    @property
    def bytes(self) -> int:
        """What it takes."""
        tensors = [kept for layer in self.cache.layers for kept in (layer.keys, layer.values)]
        return sum(kept.nbytes for kept in (*tensors, self.logits) if kept is not None)


class PrefixCache:
    """So many bytes of caches at most; what was used least lately goes first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.entries: dict[tuple[int, ...], CachedPrefix] = {}

    def pop_longest(self, prompt: Sequence[int]) -> CachedPrefix:
        """What the prompt begins with, as far as any cache has it; all of it only with the logits
        behind it. It is the caller's from now on; see `keep`."""
        shared = {ids: _shared_tokens(ids, prompt) for ids in self.entries}
        best = max(shared, key=lambda ids: (shared[ids], -len(ids)), default=())
        if shared.get(best, 0) < max(MIN_SHARED_TOKENS, len(best) // 2):
            return CachedPrefix()
        read = self.entries.pop(best)
        if len(best) == len(prompt) == shared[best] and read.logits is not None:
            return read
        return CachedPrefix(_cropped(read.cache, min(shared[best], len(prompt) - 1)))

    def insert(self, prompt: Sequence[int], read: CachedPrefix) -> None:
        """Keep what has read the prompt, and perhaps what was generated behind it."""
        if not all(type(layer) is DynamicLayer for layer in read.cache.layers):
            return
        _cropped(read.cache, len(prompt))
        self.entries.pop(tuple(prompt), None)
        if read.bytes > self.max_bytes:
            return
        self.entries[tuple(prompt)] = read
        while self.bytes > self.max_bytes:
            del self.entries[next(iter(self.entries))]

    @property
    def bytes(self) -> int:
        """What all of it takes."""
        return sum(read.bytes for read in self.entries.values())


def _shared_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    differ = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


def _cropped(cache: Any, tokens: int) -> Any:
    """The cache without what comes after its first tokens, if there is anything."""
    if (more := cache.get_seq_length() - tokens) > 0:
        cache.crop(-more)
    return cache
