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
    attend_by_products,
    attend_without_plans,
    by_products,
    known_layers,
)
from xl3m_core.inference.chat_template import Chat
from xl3m_core.inference.generation import Pieces, by_hand, by_library, read_through
from xl3m_core.inference.loading import SMALL, fingerprint, load
from xl3m_core.inference.masks import places_of
from xl3m_core.inference.model_config import check_tokens, segments_read, template_of, window_of
from xl3m_core.inference.packing import Packed, room_of
from xl3m_core.inference.prefix_cache import WarmPrompts
from xl3m_core.inference.shared_prefix import Fork
from xl3m_core.inference.tokenization import Tokens

WARM_BYTES = 256 << 20


class LanguageModel:
    """A causal LM and its tokenizer. What only tokenises is for any thread; `logits` and `fork` for
    several at once where `by_several` says so; all else for one, beside those only where it
    `reads_on`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        window: int | None = None,
        warm_bytes: int = WARM_BYTES,
    ) -> None:
        self.model = model.eval()
        attend_without_plans(model)
        attend_by_products(model)
        self.tokenizer = tokenizer
        self.config = model.config.get_text_config()
        check_tokens(model, tokenizer)
        self.window = window_of(self.config, tokenizer, window)
        self.template = template_of(model.config)
        self.k = segments_read(model.config)
        self.tokens = Tokens(tokenizer)
        self.chat = Chat(tokenizer, self.tokens.lock)
        self.bos = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
        self.fingerprint = fingerprint(model)
        self.by_several = not _scales_places(self.config)
        self._accepts = set(inspect.signature(model.forward).parameters)
        self.packs = False
        self.pads = self._can_pad()
        if capabilities.looks_ahead(self.logits):
            raise ModelError(f"{self.config.model_type} reads what follows: it is no causal LM")
        self.packs = self._can_pack()
        self.shares = self._can_share()
        # What scales its places may turn what it reads on by other factors than what it has read.
        self.reads_on = self.shares and self.by_several
        self.warm = WarmPrompts(warm_bytes if self.reads_on else 0)

    @classmethod
    def load(
        cls,
        name: str | Path = SMALL,
        *,
        device: str | None = None,
        dtype: str | None = None,
        window: int | None = None,
        warm_bytes: int = WARM_BYTES,
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

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has."""
        return [len(ids) for ids in self.encode(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self.tokens.decode(ids)

    def decode_within(self, ids: Sequence[int]) -> str:
        """The text of token ids that stand within a text. Raises IndexError for an id that the
        tokenizer does not have."""
        return self.tokens.decode_within(ids)

    @torch.inference_mode()
    def logits(self, rows: Sequence[Sequence[int]], keep: int) -> Tensor:
        """Logits of the last `keep` positions of each row: (B, keep, V), on the model's device.

        Raises ModelError if the rows differ in length and the model cannot be padded.
        """
        if self.packs and min(map(len, rows)) >= keep:
            return self.packed(rows, keep)
        ids, mask = self.padded(rows, keep)
        width = ids.shape[1]
        inputs: dict[str, Any] = {"input_ids": ids}
        if self.pads:
            inputs["attention_mask"] = mask
        if self.pads and "position_ids" in self._accepts:
            inputs["position_ids"] = places_of(mask)
        if "logits_to_keep" in self._accepts:
            inputs["logits_to_keep"] = torch.arange(width - keep, width, device=ids.device)
        logits: Tensor = self.model(**inputs, use_cache=False).logits
        return logits[:, -keep:]

    @torch.inference_mode()
    def fork(
        self, rows: Sequence[Sequence[int]], ends: Sequence[Sequence[int]], keep: Sequence[int]
    ) -> Iterator[Tensor]:
        """`logits` of every row with each of the ends behind it in turn, the row read once.

        For each end the logits of the last positions, as many as `keep` says: (B, keep, V).
        """
        most = max(0, *(k - len(end) for k, end in zip(keep, ends, strict=True)))
        fork = Fork(self.model, self.model.dtype, self.device, rows, most)
        yield from fork.logits(ends, keep)

    @torch.inference_mode()
    def packed(self, rows: Sequence[Sequence[int]], keep: int) -> Tensor:
        """`logits` (B, keep, V) of rows that have as many tokens, of a model that `packs`."""
        lengths = [*map(len, rows)]
        packed = Packed(lengths, room_of(lengths), self.device)
        output = self.model(
            input_ids=packed.ids(rows)[None],
            position_ids=packed.places[None],
            attention_mask=packed.no_mask,
            packed=packed,
            use_cache=False,
            logits_to_keep=packed.last(keep),
        )
        logits: Tensor = output.logits
        return logits.view(len(rows), keep, -1)

    def padded(self, rows: Sequence[Sequence[int]], least: int) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, W) of rows padded on the left.

            pad pad BOS s1 s2 q1 q2     every row ends in the last column, so that what
            BOS s1  s2  s3 s4 q1 q2     is kept is the same columns of all
        W is `least` or more.
        """
        width = max(least, *map(len, rows))
        if not self.pads and any(len(row) != width for row in rows):
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
        pieces, chats = Pieces(on_text), self.chats

        def over(written: list[int]) -> bool:
            text = self.decode(written)
            if chats and (thinks := self.chat.thinks(written, text)) is not False:
                return thinks is True
            pieces.hear(text)
            return not chats and "\n" in text.lstrip()

        written, first = self._written(prompt, max_tokens, over)
        if chats and self.chat.thinks(written, self.decode(written)):
            prompt = [*prompt, *self.chat.thought()]
            written, first = self._written(prompt, max_tokens, over)
        pieces.end(text := self.decode(written))
        return text, first

    def _written(
        self, prompt: Sequence[int], most: int, over: Callable[[list[int]], bool]
    ) -> tuple[list[int], Tensor]:
        """The ids of a greedy continuation until it ends or is `over`, and the first's logits."""
        ids = torch.tensor([list(prompt)], device=self.device)
        if self.reads_on:
            read = self.warm.take(prompt)
            written, first = by_hand(self.model, read, ids, most, self.ends, over)
            self.warm.keep(prompt, read)
            return written, first
        pad = self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0
        return by_library(self.model, ids, most, pad, over, self.ends, self.by_several)

    @torch.inference_mode()
    def prefill(self, prompt: Sequence[int]) -> None:
        """Read a prompt that `generate` is likely to be given, so that it is fast then."""
        if not self.reads_on:
            return
        read = self.warm.take(prompt)
        ids = torch.tensor([list(prompt)], device=self.device)
        read_through(self.model, read, ids).argmax().item()  # an accelerator is done then as well
        self.warm.keep(prompt, read)

    @property
    def device(self) -> torch.device:
        """Where the network is, and its logits."""
        return torch.device(self.model.device)

    @property
    def ends(self) -> set[int]:
        """Tokens that end whatever the model writes: those its files name, and what its template
        closes a turn with."""
        named = self.model.generation_config.eos_token_id
        named = named if isinstance(named, list) else [named]
        named = [*named, self.tokenizer.eos_token_id]
        return {id_ for id_ in named if id_ is not None} | self.chat.ends()

    @property
    def chats(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return self.chat.is_there

    def prompt(self, content: str) -> list[int]:
        """Content as the model wants to be asked: in its chat template, or behind its BOS.

        Only the template's own parts are read for special tokens, never the content.
        """
        if not self.chats:
            return self.bos + self.encode([content])[0]
        head, foot = self.chat.frame()
        return head + self.encode([content])[0] + foot

    def _can_pad(self) -> bool:
        """A model with a running state (Mamba, RWKV) is not even asked: what a pad does to a
        state may be too small to see in a short row and matter in a long one."""
        self.pads = True
        if getattr(self.model, "_is_stateful", False) or "attention_mask" not in self._accepts:
            return False
        return capabilities.can_pad(self.logits)

    def _can_pack(self) -> bool:
        """Only what attends by products can be told where each row ends."""
        return (
            by_products(self.model)
            and self._places_all()
            and capabilities.can_pack(self.logits, self.packed)
        )

    def _can_share(self) -> bool:
        return self._places_all() and capabilities.can_share_prefix(self.logits, self.fork)

    def _places_all(self) -> bool:
        """Whether tokens can be put at any place and see all before it, and the logits of any be
        asked for. A model that looks at less than all that was read is left out."""
        needed = {"position_ids", "logits_to_keep"}
        return self.pads and needed <= self._accepts and self._sees_all()

    def _sees_all(self) -> bool:
        sliding = getattr(self.config, "sliding_window", None) or self.window
        return known_layers(self.config) and sliding >= self.window


def _scales_places(config: Any) -> bool:
    """Whether the network keeps how places were turned for the longest row it last read."""
    kinds = str(getattr(config, "rope_parameters", None))
    return "dynamic" in kinds or "longrope" in kinds
