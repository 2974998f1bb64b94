"""Texts to token ids and back, from any thread.

A text is read as text alone: names of control tokens in it do not become control tokens.
"""

import threading
from collections.abc import Sequence
from itertools import chain
from typing import Any

from tokenizers.decoders import DecodeStream

from xl3m_core.inference.loading import fast_tokenizer
from xl3m_core.inference.special_tokens import TextSplitter

PROBE = "it 's a , b . [c] ? \n\n  \N{SNOWMAN}\N{GRINNING FACE} d"
"""What some tokenizers clean up after decoding, and characters of several tokens."""


class TokenCodec:
    """Encodes and decodes. Calls of the tokenizer's fast part (in Rust) need no `lock`."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.lock = threading.Lock()
        self._backend = fast_tokenizer(tokenizer)
        self._splitter = TextSplitter(tokenizer)
        self.can_stream = self._probe_streaming()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens. A lone surrogate, which UTF-8 cannot
        hold, is read as U+FFFD."""
        if not texts:
            return []
        try:
            return self._encode(list(texts))
        except (TypeError, UnicodeEncodeError):
            return self._encode([*map(_without_surrogates, texts)])

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if self._backend:
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            return [encoding.ids for encoding in encodings]
        parts = [*map(self._splitter.parts, texts)]
        with self.lock:
            plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
            ids = iter(self.tokenizer([*chain.from_iterable(parts)], **plain)["input_ids"])
        return [[*chain.from_iterable(next(ids) for _ in text_parts)] for text_parts in parts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Start and end in the text of each of its tokens, in characters."""
        if self._backend:
            try:
                return list(self._backend.encode(text, add_special_tokens=False).offsets)
            except (TypeError, UnicodeEncodeError):
                text = _without_surrogates(text)
                return list(self._backend.encode(text, add_special_tokens=False).offsets)
        ids = self.encode([text])[0]
        ends = [len(self.decode_fragment(ids[: i + 1])) for i in range(len(ids))]
        return [*zip([0, *ends], ends, strict=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        with self.lock:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def decode_fragment(self, ids: Sequence[int]) -> str:
        """The text of token ids from the middle of a text: some tokenizers drop a space at the
        start of what they decode, so another token is put before. Raises IndexError for an id the
        tokenizer does not have, whose text would be missing silently."""
        if max(ids, default=0) >= (size := len(self.tokenizer)):
            raise IndexError(f"the tokenizer has {size} tokens, and no token {max(ids)}")
        anchor = self.encode(["x"])[0]
        return self.decode([*anchor, *ids]).removeprefix(self.decode(anchor))

    def decode_next(self, stream: DecodeStream, token: int) -> str:
        """The characters that the token completes in the stream, if any. Raises Exception where
        the tokenizer cannot stream, or where bytes that form no character change earlier text."""
        with self.lock:
            return stream.step(self.tokenizer.backend_tokenizer, token) or ""

    def _probe_streaming(self) -> bool:
        """Whether token by token the same text comes out as from all tokens at once."""
        ids, stream = self.encode([PROBE])[0], DecodeStream(skip_special_tokens=True)
        try:
            return "".join(self.decode_next(stream, token) for token in ids) == self.decode(ids)
        except Exception:  # no fast part; a foreign one may raise anything
            return False


class IncrementalDecoder:
    """The text of token ids that come one by one, at a constant cost a token.

    A tokenizer that cannot stream decodes all ids again for each of them.
    """

    def __init__(self, codec: TokenCodec) -> None:
        self.codec = codec
        self.text = ""
        self._ids = list[int]()
        self._stream = DecodeStream(skip_special_tokens=True) if codec.can_stream else None

    def add(self, token: int) -> str:
        """The characters that the token completes, if any."""
        self._ids.append(token)
        piece = self._next(token)
        self.text += piece
        return piece

    def _next(self, token: int) -> str:
        if self._stream:
            try:
                return self.codec.decode_next(self._stream, token)
            except Exception:  # the library has no class of its own for it
                self._stream = None
        return self.codec.decode(self._ids).rstrip("\ufffd")[len(self.text) :]


def _without_surrogates(text: str) -> str:
    """The text with each lone surrogate as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
