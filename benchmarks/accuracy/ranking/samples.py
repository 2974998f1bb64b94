"""Samples: the first documents of a set, some of its questions, those that fit the method."""

import random
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.accuracy.datasets import Document
from xl3m_core import Engine, QuestionError

SEED = 0


def first(documents: Sequence[Document], count: int | None) -> list[Document]:
    """The first documents that have questions; None: all of them."""
    return [document for document in documents if document.questions][:count]


def sample(documents: Sequence[Document], questions: int | None) -> list[Document]:
    """The documents with that many questions in all, or with all of them; documents without any
    are left out."""
    every = [(i, each) for i, document in enumerate(documents) for each in document.questions]
    wanted = len(every) if questions is None else min(questions, len(every))
    chosen = random.Random(SEED).sample(every, wanted) if wanted < len(every) else every
    kept = [tuple(each for j, each in chosen if i == j) for i in range(len(documents))]
    pairs = zip(documents, kept, strict=True)
    return [replace(document, questions=some) for document, some in pairs if some]


def fitting(documents: Sequence[Document], engine: Engine | None) -> list[Document]:
    """The documents without questions too long for the method: no ranker gets those."""
    if engine is None:
        return list(documents)
    kept = [tuple(q for q in d.questions if _fits(engine, q.text)) for d in documents]
    return [replace(d, questions=some) for d, some in zip(documents, kept, strict=True) if some]


def count(documents: Sequence[Document]) -> int:
    """The number of questions."""
    return sum(len(document.questions) for document in documents)


def _fits(engine: Engine, question: str) -> bool:
    try:
        engine.suffix(question)
    except QuestionError:
        return False
    return True
