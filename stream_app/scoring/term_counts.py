"""Terms: counts a question's words in texts, without an index of the texts.

A long log is searched once for a question, so that building an index of all its words costs more
than the search. Here only the question's words are counted, as byte strings: some 20 MB of text a
second.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from stream_app.scoring.bm25 import words

SEPARATORS = re.compile(r"[\W_]")
_ASCII = bytes(
    code if code > 127 else ord(chr(code).lower()) if chr(code).isalnum() else ord(" ")
    for code in range(256)
)
K1, B = 1.5, 0.75
"""BM25's constants, those of the bm25s package."""


class Terms:
    """The words of a question without stop words, see `bm25.words`; an identifier counts as a
    whole and in parts."""

    def __init__(self, question: str) -> None:
        bare = dict.fromkeys(_normalized(word).strip() for word in words(question))
        self._needles = [b" " + word + b" " for word in bare if word]

    def __len__(self) -> int:
        return len(self._needles)

    def counts(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """How often each text has each term (texts, terms). A term that follows itself at once
        counts as one."""
        normalized = [*map(_normalized, texts)]
        found = [[text.count(needle) for needle in self._needles] for text in normalized]
        return np.array(found, dtype=float).reshape(len(texts), len(self))


def saturated(
    counts: np.ndarray[Any, np.dtype[np.float64]], lengths: Sequence[int]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """BM25's weight of each count (texts, terms) before the term's rarity. lengths: of the texts,
    in any unit."""
    relative = np.array(lengths, dtype=float) / max(1.0, float(np.mean(lengths or [1])))
    damping = K1 * (1 - B + B * relative)[:, None]
    weights: np.ndarray[Any, np.dtype[np.float64]] = counts / (counts + damping + 1e-9)
    return weights


def rarity(
    containing: np.ndarray[Any, np.dtype[np.int64]], texts: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """BM25's idf of each term, by the number of texts that contain it: log(1 + (N - n + .5) / (n +
    .5)) as in Lucene."""
    idf: np.ndarray[Any, np.dtype[np.float64]] = np.log1p(
        (texts - containing + 0.5) / (containing + 0.5)
    )
    return idf


def _normalized(text: str) -> bytes:
    """Lower case, each separator as a blank, with a blank at either end."""
    if text.isascii():
        return b" " + text.encode().translate(_ASCII) + b" "
    return f" {SEPARATORS.sub(' ', text.lower())} ".encode(errors="surrogatepass")
