"""ChatTemplate: the prompt of a chat model, the end of its turn, and how to skip its thoughts.

A reasoning model would fill an answer with its thoughts, and the entropy of its first token would
not be that of an answer; so a thought that it opens is closed for it.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from xl3m_core.errors import ModelError

CONTENT, REPLY = "XL3M-CONTENT-GOES-HERE", "XL3M-REPLY-GOES-HERE"
THOUGHTS = {
    "<think>": "</think>",  # DeepSeek R1, Qwen 3, SmolLM3
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",  # Seed OSS
    "[THINK]": "[/THINK]",  # Magistral
}
"""How models open and close their thoughts."""


class ChatTemplate:
    """A tokenizer's chat template, if it has one."""

    def __init__(self, tokenizer: Any, lock: threading.Lock) -> None:
        self.tokenizer = tokenizer
        self._lock = lock

    @property
    def is_available(self) -> bool:
        """Whether the tokenizer has a template."""
        return bool(self.tokenizer.chat_template)

    def prompt_frame(self) -> tuple[list[int], list[int]]:
        """The ids before and after a user's message, up to where the model begins its answer.
        Raises ModelError if the template cannot be rendered, or leaves the message out."""
        turn = [{"role": "user", "content": CONTENT}]
        try:
            text = self._rendered(turn, add_generation_prompt=True)
        except Exception as error:  # a template may raise anything
            raise ModelError(f"its chat template cannot be rendered: {error}") from error
        before, message, after = text.partition(CONTENT)
        if not message:
            raise ModelError("its chat template does not contain the user's message as it is")
        for opening, closing in THOUGHTS.items():
            if after.rfind(opening) > after.rfind(closing):  # the answer would begin in a thought
                after = f"{after.rstrip()}\n\n{closing}\n\n"
        return self._ids(before), self._ids(after)

    def end_token_ids(self) -> set[int]:
        """The control token that ends the model's turn, if there is one. A config may name the base
        model's end of text only; then the model would go on and write the next turns itself."""
        if not self.is_available:
            return set()
        turns = [{"role": "user", "content": CONTENT}, {"role": "assistant", "content": REPLY}]
        with suppress(Exception):  # a template may raise anything
            _, reply, after = self._rendered(turns).rpartition(REPLY)
            first = self._ids(after.lstrip())[:1] if reply else []
            return {*first} & {*self.tokenizer.added_tokens_decoder}
        return set()

    def empty_thought(self, opening: str) -> list[int]:
        """The ids of an empty thought that begins with this."""
        return self._ids(f"{opening}\n\n{THOUGHTS[opening]}\n\n")

    def opened_thought(self, written: Sequence[int], text: str) -> str | None:
        """What opens the thought with which the answer so far, as ids and as text, begins. The text
        may lack the token."""
        added, text = self.tokenizer.get_added_vocab(), text.lstrip()
        for opening in THOUGHTS:
            if text.startswith(opening) or added.get(opening) in written[:2]:
                return opening
        return None

    def is_thinking(self, written: Sequence[int], text: str) -> bool | None:
        """Whether the answer so far begins with a thought; None if that is not clear yet."""
        if self.opened_thought(written, text):
            return True
        text = text.lstrip()
        return None if text and any(each.startswith(text) for each in THOUGHTS) else False

    def _rendered(self, turns: list[dict[str, str]], **options: Any) -> str:
        """The rendered template; templates that know `enable_thinking` get it switched off."""
        options |= {"tokenize": False, "enable_thinking": False}
        with self._lock:
            return str(self.tokenizer.apply_chat_template(turns, **options))

    def _ids(self, text: str) -> list[int]:
        """Ids of a text with control tokens in it: for the template's own parts only."""
        with self._lock:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
