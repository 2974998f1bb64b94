"""An engine without a model whose segments have all raw numbers, and text that is talk."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from hashlib import blake2b
from math import nan

from tests.support.fakes import HashEngine
from xl3m_core import Measure
from xl3m_core.features import Features
from xl3m_core.scoring import Scores

TALK = str.maketrans("0123456789", "abcdefghij")
"""Turns a line of numbers into one without digits."""


class NumbersEngine(HashEngine):
    """Ranks by `measure`; gives the raw numbers that it needs, by a hash."""

    def __init__(self, measure: Measure = "fused", k: int = 3, batch_segments: int = 8) -> None:
        super().__init__(k, batch_segments=batch_segments)
        self.method = replace(self.method, measure=measure)
        self.calls = list[int]()
        """How many pairs each call of the scorer had."""

    def timed_features(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        self.calls.append(len(pairs))
        return super().timed_features(pairs)

    def features(
        self, pairs: Sequence[tuple[str, str]], measures: Collection[Measure] = ()
    ) -> list[Features]:
        self.scored += pairs
        return [self._hashed(*pair) for pair in pairs]

    def _hashed(self, text: str, question: str) -> Features:
        entropy, likelihood, lexical, *_ = blake2b(f"{text}\0{question}".encode()).digest()
        reads_question = self.method.measure in ("likelihood", "hybrid", "fused")
        return Features(
            entropy=entropy % 8 / 4,
            likelihood=-(likelihood % 16) / 2 if reads_question else nan,
            tokens=4 if reads_question else nan,
            lexical=lexical % 4 / 4 if self.method.measure == "fused" else nan,
        )
