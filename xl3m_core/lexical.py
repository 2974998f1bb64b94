"""QuestionWords: the weighted share of a question's words that a text has.

The weights need no corpus, so a segment's score never changes when others arrive.
"""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

WHOLE = re.compile(r"\w+(?:[-.:/@$]+\w+)*")
PART = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class QuestionWords:
    """A question's words and their weights, each above 0."""

    weights: Mapping[str, float]

    def match(self, text: str) -> float:
        """`share` of the text's words."""
        return self.share({*words(text)})

    def share(self, found: Set[str]) -> float:
        """The share of the weights whose words are among these: 0 to 1; 0 without words."""
        total = sum(self.weights.values())
        if not total:
            return 0.0
        return sum(self.weights[word] for word in sorted(found & self.weights.keys())) / total


def words(text: str) -> Iterator[str]:
    """The text's words in lower case. An identifier, such as web-17, is followed by its parts."""
    return (word for word, _, _ in word_spans(text))


def word_spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Each of `words` with its start and end in the text, in characters."""
    for match in WHOLE.finditer(text):
        yield match.group().lower(), match.start(), match.end()
        for part in PART.finditer(match.group()):
            if len(part.group()) < len(match.group()):
                start = match.start() + part.start()
                yield part.group().lower(), start, start + len(part.group())
