"""Capability probes: what a network can do, found out by running the same rows in two ways.

A config is not trusted with this: there are hundreds of architectures. The probes are given
functions from token ids to logits, so they do not depend on a network.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Rows = Sequence[Sequence[int]]
Logits = Callable[[Rows, int], Tensor]
"""Rows, and how many of their last positions: (B, positions, V)."""
SuffixLogits = Callable[[Rows, Rows, Sequence[int]], Iterator[Tensor]]
"""Rows, suffixes, and how many last positions of each suffix: for each suffix (B, positions, V)."""

SAMPLE = (
    "At 14:02 pump seven in the north hall lost pressure; the operator closed valve B, wrote it "
    "down and asked whether another one would hold until tomorrow."
)
"""Ordinary text. On a row of control tokens the logits of a chat model in bfloat16 are off by 12
nats with any attention (SmolLM2-135M: torch's own against float32), on text by 0.8."""
MIN_TOKENS = 8
"""If a tokenizer has fewer tokens for it, the first ones of the vocabulary are taken."""


@dataclass(frozen=True)
class Probe:
    """Rows of ordinary tokens, each after `bos`, and how near their logits must be.

    ids: tokens of a text. dtype: of the weights, whose rounding the logits show.
    """

    bos: Sequence[int]
    ids: Sequence[int]
    dtype: torch.dtype = torch.float32

    def row(self, numbers: Iterable[int]) -> list[int]:
        """A row whose tokens are those of these numbers; equal numbers, equal tokens."""
        return [*self.bos, *(self.ids[n % len(self.ids)] for n in numbers)]

    def rows(self, numbers: Iterable[Iterable[int]]) -> list[list[int]]:
        """Several rows."""
        return [*map(self.row, numbers)]

    def suffix(self, numbers: Iterable[int]) -> list[int]:
        """What may follow a row."""
        return self.row(numbers)[len(self.bos) :]

    def is_close(self, one: Tensor, other: Tensor) -> bool:
        """Whether two tensors of logits (..., V) differ by no more than rounding of the dtype."""
        p, q = one.float().log_softmax(-1), other.float().log_softmax(-1)
        rounding = 1e-3 if self.dtype == one.dtype == torch.float32 else 0.05
        return bool((p - q).abs().max() < rounding * p.abs().max())

    @classmethod
    def of(cls, bos: Sequence[int], ids: Sequence[int], network: object) -> "Probe":
        """The probe of a network whose tokenizer gives these ids for SAMPLE."""
        distinct = [*dict.fromkeys(ids)]
        known = distinct if len(distinct) > MIN_TOKENS else range(1, 1 + MIN_TOKENS)
        return cls(bos, known, getattr(network, "dtype", torch.float32))


def can_pad(logits: Logits, probe: Probe) -> bool:
    """Whether padding leaves a row's logits unchanged."""
    short, long = probe.rows([[1, 2, 3], [3, 2, 1, 2, 3, 1, 2]])
    return probe.is_close(logits([short], 1)[0], logits([short, long], 1)[0])


def can_pack(logits: Logits, packed_logits: Logits, probe: Probe, longest: int = 0) -> bool:
    """Whether packed rows have the logits they have alone, both of any length and of about one.

    longest: the tokens of a row that must be among them; 0 for short ones only.
    """
    uneven = probe.rows([[3, 1, 2, 3, 1], [1, 2], [2, 3, 3, 1]])
    even = probe.rows([[3, 1, 2] * 7, [1, 3, 3, 2] * 5])
    for rows in (_with_long(uneven, probe, longest), even):
        alone = [logits([row], 2)[0] for row in rows]
        try:
            packed = [*packed_logits(rows, 2)]
        except Exception:  # a foreign model may raise anything; padded rows are always right
            return False
        if not all(map(probe.is_close, alone, packed)):
            return False
    return True


def can_share_prefix(
    logits: Logits, suffix_logits: SuffixLogits, probe: Probe, longest: int = 0
) -> bool:
    """Whether suffixes after a shared prefix have the logits of whole rows; `longest` as above."""
    suffixes = [probe.suffix([3, 2]), probe.suffix([2, 4, 3])]
    prefixes = _with_long(probe.rows([[3, 1], [1, 2, 3, 4]]), probe, longest - 3)
    try:
        shared = [*suffix_logits(prefixes, suffixes, [4, 4])]
    except Exception:  # as above: whole rows are always right
        return False
    whole = [torch.cat([logits([row + end], 4) for row in prefixes]) for end in suffixes]
    return all(map(probe.is_close, whole, shared))


def _with_long(rows: list[list[int]], probe: Probe, longest: int) -> list[list[int]]:
    """The rows, and one of `longest` tokens if there is room for the others beside it."""
    if longest <= max(map(len, rows)):
        return rows
    return [*rows, probe.row(range(longest - len(probe.bos)))]


def is_bidirectional(logits: Logits, probe: Probe) -> bool:
    """Whether a token changes the predictions before it, as in BERT."""
    one, other = (logits([probe.row([1, 2, 3, last])], 4)[0, 0] for last in (3, 4))
    return not probe.is_close(one, other)
