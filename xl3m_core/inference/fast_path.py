"""FastPaths: which rows of a model may be padded, packed or share a prefix, and why others may not.

Packed rows and shared prefixes need layers in which each token sees all before it. In a model with
a sliding window that holds for rows no longer than the window.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from xl3m_core.inference import capabilities
from xl3m_core.inference.attention_choice import exact_tokens, knows_packed_rows
from xl3m_core.inference.capabilities import Probe

logger = logging.getLogger("xl3m")

Rows = Sequence[Sequence[int]]
NEEDED = ("attention_mask", "position_ids", "logits_to_keep")
"""Arguments that a network must take for packed rows and shared prefixes."""
STATE_NEEDED = ("past_key_values", "logits_to_keep")
"""The same to continue from a running state."""


class FastPaths(ABC):
    """What a language model can do faster than row by row, found out by probes.

    can_pad: rows of different lengths go together. can_pack, can_share_prefix: for rows of up to
    `fast_tokens` tokens. has_state: the network keeps a running state that it returns in its cache.
    """

    model: Any
    config: Any
    window: int
    accepts: set[str]
    probe: Probe
    has_state: bool
    can_pad = can_pack = can_share_prefix = False
    fast_tokens = 0

    @abstractmethod
    def logits(self, rows: Rows, keep: int) -> Tensor:
        """Logits of the last `keep` positions of each row: (B, keep, V)."""

    @abstractmethod
    def packed_logits(self, rows: Rows, keep: int) -> Tensor:
        """The same, the rows packed."""

    @abstractmethod
    def suffix_logits(self, rows: Rows, suffixes: Rows, keep: Sequence[int]) -> Iterator[Tensor]:
        """The same of every row with each suffix after it, the row read once."""

    def probe_paths(self) -> None:
        """Find out what the model can do with rows of any length."""
        is_stateful = getattr(self.model, "_is_stateful", False)
        self.has_state = is_stateful and {*STATE_NEEDED} <= self.accepts
        self.can_pad = self._probe_padding()
        if exact_tokens(self.config, self.window) == self.window:
            self._probe_fast_paths(self.window)

    def probe_rows(self, tokens: int) -> None:
        """Let rows of up to this many tokens, or of those in a sliding window, be packed and share
        a prefix, if such rows keep their logits. Does nothing for a model without a window or
        state, which has been probed. Not while another thread runs the model."""
        exact = self.window if self.has_state else exact_tokens(self.config, self.window)
        tokens = min(tokens, exact)
        before = self.fast_tokens, self.can_pack, self.can_share_prefix
        if tokens <= self.fast_tokens or (self._obstacle() and not self.has_state):
            return
        self._probe_fast_paths(tokens, tokens)
        if (self.can_pack, self.can_share_prefix) < before[1:]:
            self.fast_tokens, self.can_pack, self.can_share_prefix = before
        said = "; ".join(_said(self.obstacles()))
        logger.info("rows of up to %d tokens: %s", self.fast_tokens, said)

    def _probe_padding(self) -> bool:
        """A model with a running state (Mamba, RWKV) is never padded: the effect of a pad on the
        state may be too small to measure in a short row, and still matter in a long one."""
        self.can_pad = True
        if getattr(self.model, "_is_stateful", False) or "attention_mask" not in self.accepts:
            return False
        return capabilities.can_pad(self.logits, self.probe)

    def _probe_fast_paths(self, tokens: int, probed: int = 0) -> None:
        """Find out whether rows of up to `tokens` can be packed and share a prefix. probed: the
        length of one of the rows that are tried."""
        is_open = not self._obstacle()
        if not is_open and not self.has_state:
            return
        self.can_pack = self.can_share_prefix = False
        self.fast_tokens = tokens
        self.can_pack = (
            is_open
            and knows_packed_rows(self.model)
            and capabilities.can_pack(self.logits, self.packed_logits, self.probe, probed)
        )
        self.can_share_prefix = capabilities.can_share_prefix(
            self.logits, self.suffix_logits, self.probe, probed
        )

    def _obstacle(self) -> str:
        """Why no row is packed or shares a prefix, whatever its length; empty if that is open."""
        if missing := [name for name in NEEDED if name not in self.accepts]:
            return f"the network takes no {missing[0]}"
        if not self.can_pad:
            return "the model has a running state, or padding changes its logits"
        if not exact_tokens(self.config, self.window):
            return "not all layers are plain attention"
        return ""

    def obstacles(self) -> dict[str, str]:
        """For each fast path why the model does not take it; empty if it does."""
        why = self._obstacle()
        if not why and not self.fast_tokens:
            seen = exact_tokens(self.config, self.window)
            why = f"its layers see {seen} tokens: tried for the rows of a method"
        changes = why or "it changes the logits"
        if self.has_state:
            changes = "it changes the logits" if self.fast_tokens else "tried for a method's rows"
        unknown = "" if knows_packed_rows(self.model) else "its attention knows no packed rows"
        return {
            "rows padded": "" if self.can_pad else "the logits change",
            "packed": "" if self.can_pack else why or unknown or changes,
            "prefixes shared": "" if self.can_share_prefix else changes,
        }


def summary(network: Any, attention: str, obstacles: dict[str, str]) -> str:
    """One line for the log: what the model runs on, and which fast paths it takes."""
    dtype = str(getattr(network, "dtype", "")).removeprefix("torch.")
    kind = getattr(network.config, "model_type", "model")
    return "; ".join([f"{kind} in {dtype} on {network.device}", attention, *_said(obstacles)])


def _said(obstacles: dict[str, str]) -> list[str]:
    return [f"{name}: {'no, ' + why if why else 'yes'}" for name, why in obstacles.items()]
