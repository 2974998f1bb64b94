"""Spans: what may be an answer in a record, a few whole words of it.

A value such as 10.0.0.7:514, 2.0-rc1 or /var/www is one word; of `key=value` and `key: value` each
part is one. An answer does not begin or end with a word that the question holds already, or with
one that says nothing by itself.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from xl3m_core.lexical import words

MAX_WORDS = 5
"""Words of a span: "No such file or directory" has five."""

_WORD = re.compile(r"[^\s=,;()\[\]<>{}'\"|]+")
# A colon between a word and its value, such as in memory:8192 or 10.0.0.7:50010:Got, but not one in
# a time, a port or a hardware address.
_COLON = re.compile(r"(?<=[A-Za-z_]{2}):|:(?=[A-Za-z]{2})")
_OPENING, _CLOSING = ":*#", ".:!?*"
_FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "for",
        "from",
        "has",
        "have",
        "in",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "than",
        "that",
        "the",
        "this",
        "to",
        "was",
        "were",
        "will",
        "with",
    ]
)
_ALTERNATIVES = re.compile(r"(\S+)\s+or\s+(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Start:
    """All spans that begin at one word of a text: `start` and each of `ends`, in characters."""

    start: int
    ends: tuple[int, ...]


def starts(text: str, question: str) -> list[Start]:
    """The spans of a text that may answer the question, by where they begin."""
    found, known = [*word_spans(text)], _known(question)
    may_end = [not _says_nothing(text[start:end], known) for start, end in found]
    return [
        Start(start, tuple(found[j][1] for j in _reach(i, len(found)) if may_end[j]))
        for i, (start, _) in enumerate(found)
        if may_end[i]
    ]


def word_spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each word, in characters."""
    for match in _WORD.finditer(text):
        start = match.start()
        for colon in _COLON.finditer(match.group()):
            yield from _trimmed(text, start, match.start() + colon.start())
            start = match.start() + colon.end()
        yield from _trimmed(text, start, match.end())


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The word without signs at its ends, if anything is left."""
    while start < end and text[end - 1] in _CLOSING:
        end -= 1
    while start < end and text[start] in _OPENING:
        start += 1
    if any(char.isalnum() or char == "/" for char in text[start:end]):
        yield start, end


def _reach(first: int, words_in_text: int) -> range:
    return range(first, min(first + MAX_WORDS, words_in_text))


def _known(question: str) -> set[str]:
    """The words of a question, without those that it gives to choose from."""
    pairs = _ALTERNATIVES.findall(question)
    return {*words(question)} - {word for pair in pairs for each in pair for word in words(each)}


def _says_nothing(word: str, known: set[str]) -> bool:
    own = {*words(word)}
    return word.lower() in _FUNCTION_WORDS or (bool(own) and own <= known)
