"""Where a generated answer ends, and how it is handed on while it is written.

Knows token ids and a decoder; no model, no question.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer


class LineEnd(StoppingCriteria):
    """Stops when the line that was begun behind the prompt ends."""

    def __init__(self, decode: Callable[[list[int]], str], prompt_tokens: int) -> None:
        self.decode, self.prompt_tokens = decode, prompt_tokens

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        text = self.decode(ids[0, self.prompt_tokens :].tolist())
        return torch.tensor(["\n" in text.lstrip()], device=ids.device)


class Pieces(BaseStreamer):
    """Hands generated text on as soon as it is whole characters; joined it has no blank at either
    end."""

    def __init__(self, decode: Callable[[list[int]], str], on_text: Callable[[str], None]) -> None:
        self.decode, self.on_text = decode, on_text
        self.prompted, self.ids, self.given = False, list[int](), 0

    def put(self, value: Tensor) -> None:
        """The prompt, and then each token."""
        if self.prompted:
            self.ids += value.tolist()
            self._give(self.decode(self.ids).rstrip("\ufffd").strip())
        self.prompted = True

    def end(self) -> None:
        """What is left, whole or not."""
        self._give(self.decode(self.ids).strip())

    def _give(self, text: str) -> None:
        if len(text) > self.given:
            self.on_text(text[self.given :])
            self.given = len(text)
