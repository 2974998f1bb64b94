"""LanguageModel: tokenise, run rows, generate, whatever the architecture.

Any causal LM of Hugging Face will do. Rows of different length go through one forward, packed
or padded on the left; a model that padding would disturb gets rows of one length only.
Knows token ids and logits; not what a segment or a question is.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xl3m_core.errors import ModelError
from xl3m_core.inference import capabilities
from xl3m_core.inference.attention import (
    disable_cudnn_attention,
    enable_blocked_attention,
    known_layers,
    uses_blocked_attention,
)
from xl3m_core.inference.chat_template import ChatTemplate
from xl3m_core.inference.generation import (
    ShouldStop,
    TextStreamer,
    generate_with_transformers,
    greedy_decode,
    prefill,
    stop_rule,
)
from xl3m_core.inference.loading import BUNDLED_MODEL, fingerprint, load
from xl3m_core.inference.masks import position_ids
from xl3m_core.inference.model_config import (
    check_vocabulary,
    context_window,
    question_template,
    recommended_k,
)
from xl3m_core.inference.packing import PackedBatch, slots_of
from xl3m_core.inference.prefix_cache import PrefixCache
from xl3m_core.inference.shared_prefix import SharedPrefix
from xl3m_core.inference.tokenization import IncrementalDecoder, TokenCodec

PREFIX_CACHE_BYTES = 256 << 20


class LanguageModel:
    """A causal LM and its tokenizer. What only tokenises is for any thread; `logits` and `fork` for
    several at once where `by_several` says so; all else for one, beside those only where it
    `reads_on`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        window: int | None = None,
        warm_bytes: int = PREFIX_CACHE_BYTES,
    ) -> None:
        self.model = model.eval()
        disable_cudnn_attention(model)
        enable_blocked_attention(model)
        self.tokenizer = tokenizer
        self.config = model.config.get_text_config()
        check_vocabulary(model, tokenizer)
        self.window = context_window(self.config, tokenizer, window)
        self.template = question_template(model.config)
        self.k = recommended_k(model.config)
        self.tokens = TokenCodec(tokenizer)
        self.chat = ChatTemplate(tokenizer, self.tokens.lock)
        self.bos = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        self.fingerprint = fingerprint(model)
        self.thread_safe = not _has_dynamic_rope(self.config)
        self._accepts = set(inspect.signature(model.forward).parameters)
        self.can_pack = False
        self.can_pad = self._probe_padding()
        if capabilities.is_bidirectional(self.logits):
            raise ModelError(f"{self.config.model_type} reads what follows: it is no causal LM")
        self.can_pack = self._probe_packing()
        self.can_share_prefix = self._probe_shared_prefix()
        # What scales its places may turn what it reads on by other factors than what it has read.
        self.can_extend_cache = self.can_share_prefix and self.thread_safe
        self.prefix_cache = PrefixCache(warm_bytes if self.can_extend_cache else 0)

    @classmethod
    def load(
        cls,
        name: str | Path = BUNDLED_MODEL,
        *,
        device: str | None = None,
        dtype: str | None = None,
        window: int | None = None,
        warm_bytes: int = PREFIX_CACHE_BYTES,
    ) -> "LanguageModel":
        """Load a model from a folder or the hub; code that comes with a model is not run.

        warm_bytes: memory for what was read of prompts, so that it is not read again.
        Raises ModelError when there is no such model, or it is no causal LM.
        """
        model, tokenizer = load(str(name), device, dtype)
        return cls(model, tokenizer, window, warm_bytes)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, nothing added; names of control tokens in it stay text."""
        return self.tokens.encode(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has."""
        return [len(ids) for ids in self.encode(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self.tokens.decode(ids)

    def decode_fragment(self, ids: Sequence[int]) -> str:
        """The text of token ids that stand within a text. Raises IndexError for an id that the
        tokenizer does not have."""
        return self.tokens.decode_fragment(ids)

    @torch.inference_mode()
    def logits(self, rows: Sequence[Sequence[int]], keep: int) -> Tensor:
        """Logits of the last `keep` positions of each row: (B, keep, V), on the model's device.

        Raises ModelError if the rows differ in length and the model cannot be padded.
        """
        if self.can_pack and min(map(len, rows)) >= keep:
            return self.packed_logits(rows, keep)
        ids, mask = self.padded_logits(rows, keep)
        width = ids.shape[1]
        inputs: dict[str, Any] = {"input_ids": ids}
        if self.can_pad:
            inputs["attention_mask"] = mask
        if self.can_pad and "position_ids" in self._accepts:
            inputs["position_ids"] = position_ids(mask)
        if "logits_to_keep" in self._accepts:
            inputs["logits_to_keep"] = torch.arange(width - keep, width, device=ids.device)
        logits: Tensor = self.model(**inputs, use_cache=False).logits
        return logits[:, -keep:]

    @torch.inference_mode()
    def suffix_logits(
        self, rows: Sequence[Sequence[int]], ends: Sequence[Sequence[int]], keep: Sequence[int]
    ) -> Iterator[Tensor]:
        """`logits` of every row with each of the ends behind it in turn, the row read once.

        For each end the logits of the last positions, as many as `keep` says: (B, keep, V).
        """
        most = max(0, *(k - len(end) for k, end in zip(keep, ends, strict=True)))
        fork = SharedPrefix(self.model, self.model.dtype, self.device, rows, most)
        yield from fork.suffix_logits(ends, keep)

    @torch.inference_mode()
    def packed_logits(self, rows: Sequence[Sequence[int]], keep: int) -> Tensor:
        """`logits` (B, keep, V) of rows that have as many tokens, of a model that `packs`."""
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

    def padded_logits(self, rows: Sequence[Sequence[int]], least: int) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, W) of rows padded on the left.

            pad pad BOS s1 s2 q1 q2     every row ends in the last column, so that what
            BOS s1  s2  s3 s4 q1 q2     is kept is the same columns of all
        W is `least` or more.
        """
        width = max(least, *map(len, rows))
        if not self.can_pad and any(len(row) != width for row in rows):
            raise ModelError(f"{self.config.model_type} takes rows of one length only")
        pad = torch.tensor([width - len(row) for row in rows], device=self.device)
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
        mask = (torch.arange(width, device=pad.device) >= pad[:, None]).long()
        return ids.to(pad.device), mask

    @torch.inference_mode()
    def generate(
        self, prompt: Sequence[int], max_tokens: int, on_text: Callable[[str], None] | None = None
    ) -> tuple[str, Tensor]:
        """Continue the prompt greedily: the text, and the logits (V,) of its first token.

        on_text is given the text piece by piece as it comes. Without a chat template the
        answer ends with its line: a base model would go on and ask itself the next question.
        A thought that a chat model begins with is closed for it, and is no part of the answer.
        """
        streamer = TextStreamer(on_text)
        written, first = self._generated(prompt, max_tokens, self._stop_rule(streamer))
        if self.has_chat_template and self.chat.is_thinking(written, self.decode(written)):
            prompt = [*prompt, *self.chat.empty_thought()]
            written, first = self._generated(prompt, max_tokens, self._stop_rule(streamer))
        streamer.end(text := self.decode(written))
        return text, first

    def _stop_rule(self, streamer: TextStreamer) -> ShouldStop:
        chat = self.chat if self.has_chat_template else None
        return stop_rule(IncrementalDecoder(self.tokens), streamer, chat)

    def _generated(
        self, prompt: Sequence[int], most: int, over: ShouldStop
    ) -> tuple[list[int], Tensor]:
        """The ids of a greedy continuation until it ends or is `over`, and the first's logits."""
        ids = torch.tensor([list(prompt)], device=self.device)
        if self.can_extend_cache:
            read = self.prefix_cache.pop_longest(prompt)
            written, first = greedy_decode(self.model, read, ids, most, self.eos_token_ids, over)
            self.prefix_cache.insert(prompt, read)
            return written, first
        pad = self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0
        return generate_with_transformers(
            self.model, ids, most, pad, over, self.eos_token_ids, self.thread_safe
        )

    @torch.inference_mode()
    def prefill(self, prompt: Sequence[int]) -> None:
        """Read a prompt that `generate` is likely to be given, so that it is fast then."""
        if not self.can_extend_cache:
            return
        read = self.prefix_cache.pop_longest(prompt)
        ids = torch.tensor([list(prompt)], device=self.device)
        prefill(self.model, read, ids).argmax().item()  # an accelerator is done then as well
        self.prefix_cache.insert(prompt, read)

    @property
    def device(self) -> torch.device:
        """Where the network is, and its logits."""
        return torch.device(self.model.device)

    @property
    def eos_token_ids(self) -> set[int]:
        """Tokens that end whatever the model writes: those its files name, and what its template
        closes a turn with."""
        named = self.model.generation_config.eos_token_id
        named = named if isinstance(named, list) else [named]
        named = [*named, self.tokenizer.eos_token_id]
        return {id_ for id_ in named if id_ is not None} | self.chat.end_token_ids()

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return self.chat.is_available

    def prompt(self, content: str) -> list[int]:
        """Content as the model wants to be asked: in its chat template, or behind its BOS.

        Only the template's own parts are read for special tokens, never the content.
        """
        if not self.has_chat_template:
            return self.bos + self.encode([content])[0]
        head, foot = self.chat.prompt_frame()
        return head + self.encode([content])[0] + foot

    def _probe_padding(self) -> bool:
        """A model with a running state (Mamba, RWKV) is not even asked: what a pad does to a
        state may be too small to see in a short row and matter in a long one."""
        self.can_pad = True
        if getattr(self.model, "_is_stateful", False) or "attention_mask" not in self._accepts:
            return False
        return capabilities.can_pad(self.logits)

    def _probe_packing(self) -> bool:
        """Only what attends by products can be told where each row ends."""
        return (
            uses_blocked_attention(self.model)
            and self._accepts_any_position()
            and capabilities.can_pack(self.logits, self.packed_logits)
        )

    def _probe_shared_prefix(self) -> bool:
        return self._accepts_any_position() and capabilities.can_share_prefix(
            self.logits, self.suffix_logits
        )

    def _accepts_any_position(self) -> bool:
        """Whether tokens can be put at any place and see all before it, and the logits of any be
        asked for. A model that looks at less than all that was read is left out."""
        needed = {"position_ids", "logits_to_keep"}
        return self.can_pad and needed <= self._accepts and self._has_full_attention()

    def _has_full_attention(self) -> bool:
        sliding = getattr(self.config, "sliding_window", None) or self.window
        return known_layers(self.config) and sliding >= self.window


def _has_dynamic_rope(config: Any) -> bool:
    """Whether the network keeps how places were turned for the longest row it last read."""
    kinds = str(getattr(config, "rope_parameters", None))
    return "dynamic" in kinds or "longrope" in kinds
