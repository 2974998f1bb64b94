"""LanguageModel: tokenises texts, runs rows and generates, for any causal LM of Hugging Face.

Rows of different lengths go through one forward, packed or padded on the left; a model whose logits
padding would change gets rows of one length only. Token ids in, logits and text out.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xl3m_core.errors import ModelError
from xl3m_core.inference import capabilities
from xl3m_core.inference.attention_choice import (
    choose_attention,
    disable_cudnn_attention,
)
from xl3m_core.inference.capabilities import SAMPLE, Probe
from xl3m_core.inference.chat_template import ChatTemplate
from xl3m_core.inference.fast_path import FastPaths, summary
from xl3m_core.inference.generation import (
    ShouldStop,
    TextStreamer,
    generate_with_transformers,
    greedy_decode,
    prefill,
    stop_rule,
)
from xl3m_core.inference.head import use_float32_logits
from xl3m_core.inference.loading import BUNDLED_MODEL, fingerprint, load
from xl3m_core.inference.masks import pad_left, position_ids
from xl3m_core.inference.model_config import (
    check_vocabulary,
    context_window,
    question_template,
    recommended_answer,
    recommended_k,
    recommended_measure,
)
from xl3m_core.inference.packing import PackedBatch, slots_of
from xl3m_core.inference.prefix_cache import PrefixCache
from xl3m_core.inference.shared_prefix import SharedPrefix
from xl3m_core.inference.shared_state import SharedState
from xl3m_core.inference.tokenization import IncrementalDecoder, TokenCodec

PREFIX_CACHE_BYTES = 256 << 20

logger = logging.getLogger("xl3m")


class LanguageModel(FastPaths):
    """A causal LM and its tokenizer.

    Any thread may encode and decode. Several threads may call `logits` and `suffix_logits` at once
    if the model is `thread_safe`. One thread at a time may call `generate` and `prefill`: at the
    same time as those if the model `can_extend_cache`, else while none of them runs.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        window: int | None = None,
        prefix_cache_bytes: int = PREFIX_CACHE_BYTES,
    ) -> None:
        self.model = model.eval()
        disable_cudnn_attention(model)
        use_float32_logits(model)
        self.tokenizer = tokenizer
        self.config = model.config.get_text_config()
        check_vocabulary(model, tokenizer)
        self.window = context_window(self.config, tokenizer, window)
        self.template = question_template(model.config)
        self.k = recommended_k(model.config)
        self.measure = recommended_measure(model.config)
        parameters = sum(weights.numel() for weights in model.parameters())
        self.answer = recommended_answer(model.config, parameters)
        self.tokens = TokenCodec(tokenizer)
        self.chat = ChatTemplate(tokenizer, self.tokens.lock)
        self.bos = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        self.fingerprint = fingerprint(model)
        self.thread_safe = not _has_dynamic_rope(self.config)
        self.accepts = {*inspect.signature(model.forward).parameters}
        self.probe = Probe.of(self.bos, self.encode([SAMPLE])[0], model)
        attention = choose_attention(model, self.probe)
        self.probe_paths()
        if capabilities.is_bidirectional(self.logits, self.probe):
            raise ModelError(
                f"{self.config.model_type} is not a causal LM: tokens change earlier predictions"
            )
        logger.info(summary(model, attention, self.obstacles()))
        # Dynamic RoPE may rotate new tokens by other factors than those in the cache.
        self.can_extend_cache = self.can_share_prefix and self.thread_safe
        self.prefix_cache = PrefixCache(prefix_cache_bytes if self.can_extend_cache else 0)

    @classmethod
    def load(
        cls,
        name: str | Path = BUNDLED_MODEL,
        *,
        device: str | None = None,
        dtype: str | None = None,
        window: int | None = None,
        prefix_cache_bytes: int = PREFIX_CACHE_BYTES,
    ) -> "LanguageModel":
        """Load a model from a folder or the hub, without running code from there.

        window: in tokens, at most what the model can read. prefix_cache_bytes: memory for the keys
        and values of prompts. Raises ModelError if there is no such model, or it is no causal LM.
        """
        model, tokenizer = load(str(name), device, dtype)
        return cls(model, tokenizer, window, prefix_cache_bytes)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens; names of those in a text stay text."""
        return self.tokens.encode(texts)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Start and end in the text of each of its tokens, in characters."""
        return self.tokens.offsets(text)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text."""
        return [len(ids) for ids in self.encode(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self.tokens.decode(ids)

    def decode_fragment(self, ids: Sequence[int]) -> str:
        """The text of token ids from the middle of a text. Raises IndexError for an id that the
        tokenizer does not have."""
        return self.tokens.decode_fragment(ids)

    @torch.inference_mode()
    def logits(self, rows: Sequence[Sequence[int]], keep: int) -> Tensor:
        """Logits of the last `keep` positions of each row: (B, keep, V), on the model's device.

        Raises ModelError if the rows differ in length and the model cannot be padded.
        """
        lengths = [*map(len, rows)]
        if self.can_pack and min(lengths) >= keep and max(lengths) <= self.fast_tokens:
            return self.packed_logits(rows, keep)
        ids, mask = self.padded(rows, keep)
        width = ids.shape[1]
        inputs: dict[str, Any] = {"input_ids": ids}
        if self.can_pad:
            inputs["attention_mask"] = mask
        if self.can_pad and "position_ids" in self.accepts:
            inputs["position_ids"] = position_ids(mask)
        if "logits_to_keep" in self.accepts:
            inputs["logits_to_keep"] = torch.arange(width - keep, width, device=ids.device)
        logits: Tensor = self.model(**inputs, use_cache=False).logits
        return logits[:, -keep:]

    @torch.inference_mode()
    def suffix_logits(
        self, rows: Sequence[Sequence[int]], suffixes: Sequence[Sequence[int]], keep: Sequence[int]
    ) -> Iterator[Tensor]:
        """`logits` of every row with each suffix after it, the row read once.

        Yields for each suffix the logits of its last `keep` positions: (B, keep, V). Rows that are
        too long to share their prefix are read whole.
        """
        if max(map(len, rows)) + max(map(len, suffixes)) > self.fast_tokens:
            for suffix, positions in zip(suffixes, keep, strict=True):
                whole = [[*row, *suffix] for row in rows]
                parts = [whole] if self.can_pad else [[row] for row in whole]
                yield torch.cat([self.logits(part, positions) for part in parts])
            return
        keep_prefix = max(0, *(k - len(suffix) for k, suffix in zip(keep, suffixes, strict=True)))
        if self.has_state:
            yield from SharedState(self.model, self.device, rows, keep_prefix).suffix_logits(
                suffixes, keep
            )
            return
        shared = SharedPrefix(self.model, self.model.dtype, self.device, rows, keep_prefix)
        yield from shared.suffix_logits(suffixes, keep)

    @torch.inference_mode()
    def packed_logits(self, rows: Sequence[Sequence[int]], keep: int) -> Tensor:
        """`logits` (B, keep, V) of rows of at least `keep` tokens, if the model `can_pack`."""
        lengths = [*map(len, rows)]
        packed = PackedBatch(lengths, slots_of(lengths), self.device)
        output = self.model(
            input_ids=packed.ids(rows)[None],
            position_ids=packed.position_ids[None],
            attention_mask=packed.no_mask,
            packed=packed,
            use_cache=False,
            logits_to_keep=packed.last(keep),
        )
        logits: Tensor = output.logits
        return logits.view(len(rows), keep, -1)

    def padded(self, rows: Sequence[Sequence[int]], min_width: int) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, W) of rows padded on the left; W is at least `min_width`.

        Raises ModelError if the rows differ in length and the model cannot be padded.
        """
        width = max(min_width, *map(len, rows))
        if not self.can_pad and any(len(row) != width for row in rows):
            raise ModelError(f"{self.config.model_type} takes rows of one length only")
        return pad_left(rows, width, self.device)

    @torch.inference_mode()
    def generate(
        self, prompt: Sequence[int], max_tokens: int, on_text: Callable[[str], None] | None = None
    ) -> tuple[str, Tensor]:
        """Continue the prompt greedily: the text, and the logits (V,) of its first token.

        on_text is called with each piece of the text. Without a chat template the answer ends with
        its line, because a base model would go on with a next question. If a chat model begins with
        a thought, the thought is closed and left out, and the answer begins after it. An answer
        that repeats itself ends.
        """
        streamer = TextStreamer(on_text)
        written, first = self._generated(prompt, max_tokens, self._stop_rule(streamer))
        opening = self.has_chat_template and self.chat.opened_thought(written, self.decode(written))
        if opening:
            prompt = [*prompt, *self.chat.empty_thought(opening)]
            written, first = self._generated(prompt, max_tokens, self._stop_rule(streamer))
        streamer.end(text := self.decode(written))
        return text, first

    def _stop_rule(self, streamer: TextStreamer) -> ShouldStop:
        chat = self.chat if self.has_chat_template else None
        return stop_rule(IncrementalDecoder(self.tokens), streamer, chat)

    def _generated(
        self, prompt: Sequence[int], max_tokens: int, should_stop: ShouldStop
    ) -> tuple[list[int], Tensor]:
        """The ids of a greedy continuation, and the logits (V,) of the first."""
        ids, eos = torch.tensor([list(prompt)], device=self.device), self.eos_token_ids
        if self.can_extend_cache:
            cached = self.prefix_cache.pop_longest(prompt)
            written, first = greedy_decode(self.model, cached, ids, max_tokens, eos, should_stop)
            self.prefix_cache.insert(prompt, cached)
            return written, first
        pad = self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0
        return generate_with_transformers(
            self.model, ids, max_tokens, pad, should_stop, eos, self.thread_safe
        )

    @torch.inference_mode()
    def prefill(self, prompt: Sequence[int]) -> None:
        """Read a prompt into the prefix cache: `generate` is fast if it gets the same prompt."""
        if not self.can_extend_cache:
            return
        cached = self.prefix_cache.pop_longest(prompt)
        ids = torch.tensor([list(prompt)], device=self.device)
        prefill(self.model, cached, ids).argmax().item()  # waits for a GPU, too
        self.prefix_cache.insert(prompt, cached)

    @property
    def device(self) -> torch.device:
        """The device of the network and of its logits."""
        return torch.device(self.model.device)

    @property
    def eos_token_ids(self) -> set[int]:
        """Tokens that end an answer: those in the model's files, and the one with which its chat
        template ends a turn."""
        named = self.model.generation_config.eos_token_id
        named = named if isinstance(named, list) else [named]
        named = [*named, self.tokenizer.eos_token_id]
        return {id_ for id_ in named if id_ is not None} | self.chat.end_token_ids()

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return self.chat.is_available

    def prompt(self, content: str) -> list[int]:
        """The prompt for a text: in the chat template, or after BOS.

        Only the template's own parts may contain special tokens, never the text.
        """
        before, after = self.frame
        return before + self.encode([content])[0] + after

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """The ids before and after a text in a prompt: of the chat template, or BOS alone."""
        return self.chat.prompt_frame() if self.has_chat_template else (self.bos, [])


def _has_dynamic_rope(config: Any) -> bool:
    """Whether the network keeps rotation factors that depend on the longest row it has read."""
    kinds = str(getattr(config, "rope_parameters", None))
    return "dynamic" in kinds or "longrope" in kinds
