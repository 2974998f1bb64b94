"""Relevance: the score of a segment for a question, as a function of its raw numbers.

The paper's measure (arXiv 2405.17755) is `entropy`: the lower the Shannon entropy of the
next-token distribution after the question, the more relevant the segment. `top_p` is the entropy of
the nucleus, without the unlikely tokens (as in NBCE); `likelihood` how well the segment predicts
the question itself (as in LongLLMLingua and ParallelComp); `hybrid` both: log p of the whole
question, minus the entropy of the next token. `fused` adds to the likelihood the share of the
question's words that the segment has; see docs/experiments.md for how they compare.
"""

import math
from collections.abc import Iterable

from xl3m_core.features import Features
from xl3m_core.method import Measure

DIGITS = 4
"""Scores are rounded to 1e-4: a finer difference comes from the other rows of a batch."""
LEXICAL_WEIGHT = 4.0
"""Nats a token that a segment gains if it has all words of the question. Chosen on meetings of
QMSum's training part, where 4 to 10 differ by 0.01, see docs/experiments.md."""
SMOOTHED_MEASURES: frozenset[Measure] = frozenset({"fused"})
"""Measures whose final score is smoothed over neighbours in running text; see `smoothing`."""
ONE_POSITION: frozenset[Measure] = frozenset({"entropy", "top_p"})
"""Measures that read the last position's logits alone."""


def relevance(features: Features, measure: Measure) -> float:
    """The score by a measure; higher is more relevant. -inf if a number it needs is NaN."""
    score = _score(features, measure)
    return -math.inf if math.isnan(score) else round(score, DIGITS)


def _score(features: Features, measure: Measure) -> float:
    entropy, nucleus, likelihood, tokens, lexical = features
    if measure == "entropy":
        return -entropy
    if measure == "top_p":
        return -nucleus
    if measure == "hybrid":
        return likelihood - entropy
    mean = likelihood / tokens if tokens else math.nan
    return mean + LEXICAL_WEIGHT * lexical if measure == "fused" else mean


def reads_question(measures: Iterable[Measure]) -> bool:
    """Whether any of the measures reads the logits of the question's own tokens."""
    return not ONE_POSITION.issuperset(measures)
