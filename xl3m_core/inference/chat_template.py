"""Chat: how a chat model wants to be asked, where its turn ends, and how it is kept from thinking.

A reasoning model would fill an answer with what it thinks first, and its first token would say
nothing of how certain it is; so what it opens with is closed for it. Knows a tokenizer; no network.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

CONTENT, REPLY = "XL3M-CONTENT-GOES-HERE", "XL3M-REPLY-GOES-HERE"
OPEN, CLOSE = "<think>", "</think>"


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
        """The ids before and behind what a user says, up to where the model is to answer."""
        turn = [{"role": "user", "content": CONTENT}]
        before, _, after = self._rendered(turn, add_generation_prompt=True).partition(CONTENT)
        if after.rfind(OPEN) > after.rfind(CLOSE):  # it would begin inside its thoughts
            after = f"{after.rstrip()}\n\n{CLOSE}\n\n"
        return self._ids(before), self._ids(after)

    def end_token_ids(self) -> set[int]:
        """The control token that closes the model's turn, if one does: a model whose file names
        its base's end of text alone would go on and write the next turns itself."""
        if not self.is_available:
            return set()
        turns = [{"role": "user", "content": CONTENT}, {"role": "assistant", "content": REPLY}]
        with suppress(Exception):  # a template may refuse whatever it likes
            _, found, after = self._rendered(turns).rpartition(REPLY)
            first = self._ids(after.lstrip())[:1] if found else []
            return {*first} & {*self.tokenizer.added_tokens_decoder}
        return set()

    def empty_thought(self) -> list[int]:
        """A thought that was opened and closed, as ids."""
        return self._ids(f"{OPEN}\n\n{CLOSE}\n\n")

    def is_thinking(self, written: Sequence[int], text: str) -> bool | None:
        """Whether what is written begins with a thought; None while it may. The token that opens
        one may be left out of the text."""
        begun = text.lstrip()
        if begun.startswith(OPEN) or self.tokenizer.get_added_vocab().get(OPEN) in written[:2]:
            return True
        return None if begun and OPEN.startswith(begun) else False

    def _rendered(self, turns: list[dict[str, str]], **options: Any) -> str:
        """By the template, which is told not to have the model think, if it knows what that is."""
        options |= {"tokenize": False, "enable_thinking": False}
        with self._lock:
            return str(self.tokenizer.apply_chat_template(turns, **options))

    def _ids(self, text: str) -> list[int]:
        """With control tokens: only for what is nobody's text."""
        with self._lock:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
