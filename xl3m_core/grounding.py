"""Grounded: whether an answer stands, word for word, in the texts it rests on.

Small models invent: what is nowhere in the evidence is the plainest sign. Case, spaces, forms of
one character and punctuation at the ends make no difference. Knows texts; no model.
"""

import re
import unicodedata
from collections.abc import Sequence

# Scripts written without spaces: a word of theirs may stand anywhere in a text.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_IN_WORD = f"[^\\W{_UNSPACED}]"
# A comma within a number does not separate; "and" does, between values of a list.
_BETWEEN = re.compile(r"\n|[,;](?!\d)|、|\s(?:and|&|und|et|y)\s|^and\s", re.IGNORECASE)


def is_grounded(answer: str, texts: Sequence[str]) -> bool:
    """Whether the answer is found in one of the texts as whole words, or each of its parts is,
    where commas, semicolons, lines or "and" make it a list. An empty answer is not."""
    answer = unicodedata.normalize("NFKC", answer)
    read = [_normalised(text) for text in texts]
    if _is_in(answer, read):
        return True
    parts = [part for part in _BETWEEN.split(answer) if _bare(part)]
    return bool(parts) and all(_is_in(part, read) for part in parts)


def _is_in(answer: str, texts: Sequence[str]) -> bool:
    wanted = _bare(answer)
    if not wanted:
        return False
    pattern = re.compile(_edge_before(wanted[0]) + re.escape(wanted) + _edge_behind(wanted[-1]))
    return any(pattern.search(text) for text in texts)


def _bare(text: str) -> str:
    """The text normalised, without punctuation at its ends."""
    text = _normalised(text)
    start, end = 0, len(text)
    while start < end and _is_punctuation(text[start]):
        start += 1
    while start < end and _is_punctuation(text[end - 1]):
        end -= 1
    return text[start:end]


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _is_punctuation(char: str) -> bool:
    return char in " `" or unicodedata.category(char).startswith("P")


def _edge_before(first: str) -> str:
    """What must not stand before an answer: more of its first word, or of its number."""
    number = r"(?<!\d\.)" if first.isdigit() else ""
    return number + (f"(?<!{_IN_WORD})" if re.match(_IN_WORD, first) else "")


def _edge_behind(last: str) -> str:
    number = r"(?!\.\d)" if last.isdigit() else ""
    return number + (f"(?!{_IN_WORD})" if re.match(_IN_WORD, last) else "")
