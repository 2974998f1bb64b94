"""Smoothing: the final score of a segment of running text is a mean over its neighbours.

What answers a question in talk or prose is seldom one segment alone; a log's record stands by
itself. Whether a segment is smoothed follows from its own text, so the order of scoring does not
matter.
"""

import math
from collections.abc import Callable

from xl3m_core.relevance import DIGITS

WEIGHTS = (0.4, 0.7, 1.0, 0.7, 0.4)
"""Weights of the neighbours from two before a segment to two after it."""
REACH = len(WEIGHTS) // 2
MAX_DIGITS = 0.12
"""Running text has fewer digits among its visible characters: meetings at most .01, chat with times
.10, and logs of eight systems .16 to .45 (medians)."""


def is_running_text(text: str) -> bool:
    """Whether the text is talk or prose rather than a log or a table."""
    visible = sum(map(len, text.split()))
    return sum(map(str.isdigit, text)) < MAX_DIGITS * visible


def smoothed(index: int, score: Callable[[int], float | None]) -> float:
    """The weighted mean of the scores of the segment `index` and its neighbours.

    score: of a segment by index; None or -inf if it has none; -inf if the segment itself has none.
    """
    own = score(index)
    if own is None or not own > -math.inf:
        return -math.inf
    total = weight = 0.0
    for offset, share in enumerate(WEIGHTS, -REACH):
        value = score(index + offset)
        if value is not None and value > -math.inf:
            total += share * value
            weight += share
    return round(total / weight, DIGITS)
