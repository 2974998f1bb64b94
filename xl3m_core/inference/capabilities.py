"""Asked: what a network can do, found out by reading the same rows in two ways.

Not believed from its config: there are hundreds of architectures. Knows logits; no network.
"""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from xl3m_core.measure import logits_close

Rows = Sequence[Sequence[int]]
Logits = Callable[[Rows, int], Tensor]
"""Rows, and of how many of their last tokens: (B, so many, V)."""
SuffixLogits = Callable[[Rows, Rows, Sequence[int]], Iterator[Tensor]]


def can_pad(logits: Logits) -> bool:
    """Whether padding leaves a row's logits as they are."""
    short, long = [1, 2, 3], [3, 2, 1, 2, 3, 1, 2]
    return logits_close(logits([short], 1)[0], logits([short, long], 1)[0])


def can_pack(logits: Logits, packed: Logits) -> bool:
    """Whether packed rows have the logits that they have alone, of any length and of about one."""
    uneven = [[3, 1, 2, 3, 1], [1, 2], [2, 3, 3, 1]]
    for rows in (uneven, [[3, 1, 2] * 7, [1, 3, 3, 2] * 5]):
        try:
            found = packed(rows, 2)
        except Exception:  # whatever a foreign model raises, padded rows are always right
            return False
        if not all(
            logits_close(logits([row], 2)[0], own) for row, own in zip(rows, found, strict=True)
        ):
            return False
    return True


def can_share_prefix(logits: Logits, fork: SuffixLogits) -> bool:
    """Whether the ends of a forked row are as good as whole rows."""
    read, ends = [[3, 1], [1, 2, 3, 4]], [[3, 2], [2, 4, 3]]
    try:
        shared = [*fork(read, ends, [4, 4])]
    except Exception:  # as above: whole rows are always right
        return False
    whole = [logits([row + end for row in read], 4) for end in ends]
    return all(map(logits_close, whole, shared))


def is_bidirectional(logits: Logits) -> bool:
    """Whether a token changes what is predicted before it, as in BERT and its kin."""
    one, other = (logits([[1, 2, 3, last]], 4)[0, 0] for last in (3, 4))
    return not logits_close(one, other)
