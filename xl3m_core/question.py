"""EncodedQuestion: a question's tokens as they stand behind every segment.

Only the tokens of the question itself are measured, not those of the template around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from xl3m_core.lexical import QuestionWords, word_spans

IGNORE_INDEX = -100
"""In the place of a label that is not measured, as in torch and transformers."""


class Tokenizer(Protocol):
    """What a question needs of a model."""

    template: str

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each token of the text, in characters."""


@dataclass(frozen=True, slots=True)
class EncodedQuestion:
    """suffix: the ids with which each row ends: the question in its template. labels: those that
    belong to the question, IGNORE_INDEX in the place of others. offsets: start and end of these in
    `text`, in characters."""

    text: str
    suffix: tuple[int, ...]
    labels: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, question: str) -> "EncodedQuestion":
        """A question in the model's template."""
        text = tokenizer.template.replace("{question}", question)
        ids, spans = tokenizer.encode([text])[0], tokenizer.offsets(text)
        start = tokenizer.template.index("{question}")
        stop = start + len(question)
        inside = [first < stop and last > start for first, last in spans]
        labels = [id_ if own else IGNORE_INDEX for id_, own in zip(ids, inside, strict=True)]
        offsets = [
            (first - start, last - start)
            for (first, last), own in zip(spans, inside, strict=True)
            if own
        ]
        return cls(question, (*ids,), (*labels,), (*offsets,))

    def words(self, surprisals: Sequence[float]) -> QuestionWords:
        """The question's words, each weighted by the surprisals, in nats, of its tokens: how little
        the model expects it. Of a word that occurs several times, the first counts most."""
        weights: dict[str, float] = {}
        for word, start, stop in word_spans(self.text):
            tokens = zip(self.offsets, surprisals, strict=True)
            weight = sum(nats for (first, last), nats in tokens if first < stop and last > start)
            weights[word] = max(weights.get(word, 0.0), weight)
        return QuestionWords({word: weight for word, weight in weights.items() if weight > 0})
