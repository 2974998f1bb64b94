"""Tokens: texts to token ids and back, from any thread.

What is read of a text is text alone, never a control token. Knows a tokenizer; no network.
"""

import threading
from collections.abc import Sequence
from itertools import chain
from typing import Any

from xl3m_core.inference.loading import fast_tokenizer
from xl3m_core.inference.special_tokens import TextSplitter


class TokenCodec:
    """A tokenizer at work. What goes through its part in Rust needs no `lock`."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.lock = threading.Lock()
        self._backend = fast_tokenizer(tokenizer)
        self._cutter = TextSplitter(tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, nothing added. Half of a surrogate pair, which no UTF-8 holds, is
        read as U+FFFD."""
        if not texts:
            return []
        try:
            return self._encode(list(texts))
        except (TypeError, UnicodeEncodeError):
            return self._encode([*map(_without_partial_characters, texts)])

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if self._backend:
            found = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            return [encoding.ids for encoding in found]
        parts = [*map(self._cutter.parts, texts)]
        with self.lock:
            plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
            ids = iter(self.tokenizer([*chain.from_iterable(parts)], **plain)["input_ids"])
        return [[*chain.from_iterable(next(ids) for _ in each)] for each in parts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        with self.lock:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def decode_fragment(self, ids: Sequence[int]) -> str:
        """The text of token ids that stand within a text: some tokenizers drop a space at the
        start of what they decode, so another token goes before. Raises IndexError for an id the
        tokenizer does not have: its text would be missing without a word."""
        if max(ids, default=0) >= (most := len(self.tokenizer)):
            raise IndexError(f"the tokenizer has {most} tokens, and no token {max(ids)}")
        anchor = self.encode(["x"])[0]
        return self.decode([*anchor, *ids]).removeprefix(self.decode(anchor))


def _without_partial_characters(text: str) -> str:
    """The text with each lone surrogate as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
