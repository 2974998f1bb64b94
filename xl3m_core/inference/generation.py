"""How an answer is written: token by token, the most likely each time, until its line ends.

By hand where a cache holds what was read, which with a small model takes a quarter less time to
the first token; else by the library. Knows token ids, a network, a decoder; no question.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from xl3m_core.inference.chat_template import ChatTemplate
from xl3m_core.inference.prefix_cache import CachedPrefix
from xl3m_core.inference.tokenization import IncrementalDecoder

ShouldStop = Callable[[list[int]], bool]
"""Told all tokens so far after each one; whether that was the last."""


def forward(model: Any, cache: Any, ids: Tensor) -> Tensor:
    """The logits (V,) behind ids (1, N), which go into the cache."""
    output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: Tensor = output.logits[0, -1]
    return logits


def prefill(model: Any, read: CachedPrefix, prompt: Tensor) -> Tensor:
    """The logits (V,) behind a prompt (1, N) of which a part or all is read; the rest is now."""
    if read.logits is None:
        read.logits = forward(model, read.cache, prompt[:, read.cache.get_seq_length() :])
    return read.logits


def greedy_decode(
    model: Any,
    read: CachedPrefix,
    prompt: Tensor,
    most: int,
    ends: Collection[int],
    over: ShouldStop,
) -> tuple[list[int], Tensor]:
    """At most so many tokens, one at least, behind a prompt (1, N) of which a part or all is read,
    and the logits (V,) of the first one. What is read of it all goes into the cache."""
    first = prefill(model, read, prompt)
    written = [int(first.argmax())]
    while not (over(written) or written[-1] in ends) and len(written) < most:
        ids = torch.tensor([written[-1:]], device=prompt.device)
        written.append(int(forward(model, read.cache, ids).argmax()))
    return written, first


def generate_with_transformers(
    model: Any,
    prompt: Tensor,
    most: int,
    pad: int,
    over: ShouldStop,
    ends: Collection[int] = (),
    caches: bool = True,
) -> tuple[list[int], Tensor]:
    """The same for any model; what else its own file asks for (a least length, say) is done.
    caches: whether it can read on behind a cache."""
    output = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=most,
        do_sample=False,
        num_beams=1,
        # A model's own file may ask for these; an answer repeats what its context says.
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        pad_token_id=pad,
        eos_token_id=sorted(ends) or None,
        use_cache=caches,
        stopping_criteria=[_StopCriterion(over, prompt.shape[1])],
        return_dict_in_generate=True,
        output_logits=True,
    )
    return output.sequences[0, prompt.shape[1] :].tolist(), output.logits[0][0]


class _StopCriterion(StoppingCriteria):
    """As the library asks for it."""

    def __init__(self, over: ShouldStop, prompt_tokens: int) -> None:
        self.over, self.prompt_tokens = over, prompt_tokens

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        is_over = self.over(ids[0, self.prompt_tokens :].tolist())
        return torch.tensor([is_over], device=ids.device)


class TextStreamer:
    """Hands text on as soon as it is known not to be blank at either end of the answer."""

    def __init__(self, on_text: Callable[[str], None] | None) -> None:
        self.on_text = on_text
        self.has_line_break = False  # behind the first character that is not blank
        self._given = 0
        self._blanks = ""

    def put(self, text: str) -> None:
        """The next whole characters."""
        text = self._blanks + text if self._given else text.lstrip()
        self.has_line_break |= "\n" in text
        kept = text.rstrip()
        self._blanks = text[len(kept) :]
        self._give(kept)

    def end(self, text: str) -> None:
        """Hand on what is missing of the whole text, also half a character."""
        self._give(text.strip()[self._given :])

    def _give(self, text: str) -> None:
        if text:
            self._given += len(text)
            if self.on_text:
                self.on_text(text)


def stop_rule(
    decoder: IncrementalDecoder, streamer: TextStreamer, chat: ChatTemplate | None
) -> ShouldStop:
    """Streams the answer, and stops it at the end of its line, or a chat model's where it begins
    with a thought."""
    pending = list[str]()

    def should_stop(written: list[int]) -> bool:
        pending.append(decoder.add(written[-1]))
        if chat and (thinks := chat.is_thinking(written, decoder.text)) is not False:
            return thinks is True
        streamer.put("".join(pending))
        pending.clear()
        return chat is None and streamer.has_line_break

    return should_stop
