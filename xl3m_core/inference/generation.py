"""Greedy decoding: the most likely token each time, until the answer's line ends.

With a cache of what was read, the loop here takes a quarter less time to the first token of a
small model than transformers' own; other models use transformers.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from xl3m_core.inference.chat_template import ChatTemplate
from xl3m_core.inference.prefix_cache import CachedPrefix
from xl3m_core.inference.tokenization import IncrementalDecoder

LOOP_COPIES, LOOP_TOKENS = 3, 24
ShouldStop = Callable[[list[int]], bool]
"""Called after each token with all tokens so far; True if that was the last one."""


def forward(model: Any, cache: Any, ids: Tensor) -> Tensor:
    """The logits (V,) after ids (1, N), which extend the cache."""
    output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: Tensor = output.logits[0, -1]
    return logits


def prefill(model: Any, cached: CachedPrefix, prompt: Tensor) -> Tensor:
    """The logits (V,) after a prompt (1, N); tokens that are not in the cache are read."""
    if cached.logits is None:
        cached.logits = forward(model, cached.cache, prompt[:, cached.cache.get_seq_length() :])
    return cached.logits


def greedy_decode(
    model: Any,
    cached: CachedPrefix,
    prompt: Tensor,
    max_tokens: int,
    eos_token_ids: Collection[int],
    should_stop: ShouldStop,
) -> tuple[list[int], Tensor]:
    """One to `max_tokens` tokens after a prompt (1, N), and the logits (V,) of the first.

    The cache may hold a part of the prompt or all of it; afterwards it holds all that was read.
    """
    first = prefill(model, cached, prompt)
    written = [int(first.argmax())]
    while not (should_stop(written) or written[-1] in eos_token_ids) and len(written) < max_tokens:
        ids = torch.tensor([written[-1:]], device=prompt.device)
        written.append(int(forward(model, cached.cache, ids).argmax()))
    return written, first


def generate_with_transformers(
    model: Any,
    prompt: Tensor,
    max_tokens: int,
    pad_token_id: int,
    should_stop: ShouldStop,
    eos_token_ids: Collection[int] = (),
    use_cache: bool = True,
) -> tuple[list[int], Tensor]:
    """`greedy_decode` for any model. Other options of its generation config, such as a minimum
    length, apply. use_cache: whether the model can extend its cache."""
    output = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=max_tokens,
        do_sample=False,
        num_beams=1,
        # A model's own config may set these; but an answer repeats words of its context.
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        pad_token_id=pad_token_id,
        eos_token_id=sorted(eos_token_ids) or None,
        use_cache=use_cache,
        stopping_criteria=[_StopCriterion(should_stop, prompt.shape[1])],
        return_dict_in_generate=True,
        output_logits=True,
    )
    return output.sequences[0, prompt.shape[1] :].tolist(), output.logits[0][0]


class _StopCriterion(StoppingCriteria):
    """`ShouldStop` in the form transformers calls."""

    def __init__(self, should_stop: ShouldStop, prompt_tokens: int) -> None:
        self.should_stop, self.prompt_tokens = should_stop, prompt_tokens

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """ids: (1, N), the prompt's and those written."""
        is_last = self.should_stop(ids[0, self.prompt_tokens :].tolist())
        return torch.tensor([is_last], device=ids.device)


class TextStreamer:
    """Hands text on as soon as it is known not to be blank at either end of the answer."""

    def __init__(self, on_text: Callable[[str], None] | None) -> None:
        self.on_text = on_text
        self.has_line_break = False  # after the first character that is not blank
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
        return is_loop(written) or (chat is None and streamer.has_line_break)

    return should_stop


def is_loop(written: Sequence[int]) -> bool:
    """Whether the tokens end with LOOP_COPIES copies of the same few, LOOP_TOKENS in all or more:
    greedy decoding hardly ever leaves such a loop."""
    for period in range(1, len(written) // LOOP_COPIES + 1):
        copies = max(LOOP_COPIES, -(-LOOP_TOKENS // period))
        if copies * period > len(written):
            continue
        last = written[-copies * period :]
        if last[period:] == last[:-period]:
            return True
    return False
