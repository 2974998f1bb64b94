"""BM25 over segments: the ranker by words that XL3M is compared with.

The scores are those of the bm25s package; the words are this file's: an identifier such as
web-17 or blk_-160899 counts whole and in parts. Knows texts, no model.
"""

import re
from collections.abc import Iterator, Sequence

import bm25s
import numpy as np
from bm25s.stopwords import STOPWORDS_EN

WHOLE = re.compile(r"\w+(?:[-.:/@$]+\w+)*")
PART = re.compile(r"[^\W_]+")


class Bm25:
    """An index of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.index = bm25s.BM25()
        self.index.index([words(text) for text in texts], show_progress=False)

    def ranked(self, question: str, k: int) -> list[int]:
        """The k best texts, the best first; of equal scores the earlier text."""
        scores = self.index.get_scores(words(question))
        best = np.argsort(-scores, kind="stable")[:k]
        return [int(i) for i in best]


def words(text: str) -> list[str]:
    """The text's words in lower case, stop words left out; an identifier and then its parts."""
    return [word for word in _words(text.lower()) if word not in STOPWORDS_EN]


def _words(text: str) -> Iterator[str]:
    for match in WHOLE.finditer(text):
        whole = match.group()
        parts = PART.findall(whole)
        yield whole
        if parts != [whole]:
            yield from parts
