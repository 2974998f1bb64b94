"""BM25 over segments: the ranker by words, cheap beside a model's.

The scores are those of the bm25s package; the words are this file's: an identifier such as
web-17 or blk_-160899 counts whole and in parts. Knows texts, no model.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import bm25s
import numpy as np
from bm25s.stopwords import STOPWORDS_EN

WHOLE = re.compile(r"\w+(?:[-.:/@$]+\w+)*")
PART = re.compile(r"[^\W_]+")


class Bm25:
    """An index of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.index = len(texts), bm25s.BM25()
        read = [words(text) for text in texts]
        self.known = {word for each in read for word in each}
        if self.known:
            self.index.index(read, show_progress=False)

    def ranked(self, question: str, k: int) -> list[int]:
        """The k best texts, the best first; of equal scores the earlier text."""
        best = np.argsort(-self.scores(question), kind="stable")[:k]
        return [int(i) for i in best]

    def scores(self, question: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Each text's score, 0 for one that has no word of the question."""
        asked = [word for word in words(question) if word in self.known]
        if not asked:
            return np.zeros(self.texts, dtype=np.float32)
        found: np.ndarray[Any, np.dtype[np.float32]] = self.index.get_scores(asked)
        return found


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
