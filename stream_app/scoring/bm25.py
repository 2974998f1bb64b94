"""Bm25: ranks segments by the words they share with a question, far cheaper than a model does.

The scores come from the bm25s package; the tokenizer is our own, so that an identifier such as
web-17 or blk_-160899 counts as a whole and in parts.
"""

from collections.abc import Sequence
from typing import Any

import bm25s
import numpy as np
from bm25s.stopwords import STOPWORDS_EN

from xl3m_core import lexical


class Bm25:
    """An index of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.index = len(texts), bm25s.BM25()
        tokenized = [words(text) for text in texts]
        self.vocabulary = {word for each in tokenized for word in each}
        if self.vocabulary:
            self.index.index(tokenized, show_progress=False)

    def ranked(self, question: str, k: int) -> list[int]:
        """The indices of the k best texts, best first; of equal scores the earlier text first."""
        best = np.argsort(-self.scores(question), kind="stable")[:k]
        return [int(i) for i in best]

    def scores(self, question: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Each text's score (texts,); 0 for a text without any word of the question."""
        known = [word for word in words(question) if word in self.vocabulary]
        if not known:
            return np.zeros(self.texts, dtype=np.float32)
        scores: np.ndarray[Any, np.dtype[np.float32]] = self.index.get_scores(known)
        return scores


def words(text: str) -> list[str]:
    """The text's words in lower case, without stop words. An identifier is followed by its
    parts."""
    return [word for word in lexical.words(text) if word not in STOPWORDS_EN]
