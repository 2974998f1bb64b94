"""Grounding: whether an answer occurs, word for word, in its evidence.

Small models invent answers; one that occurs nowhere in the evidence is the clearest sign. Case,
whitespace, Unicode forms and punctuation at the ends are ignored.
"""

import re
import unicodedata
from collections.abc import Sequence

# Scripts written without spaces, where a word may begin anywhere.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_IN_WORD = f"[^\\W{_UNSPACED}]"
# Separators of a list. A comma inside a number is none; the word "and" is one.
_BETWEEN = re.compile(r"\n|[,;](?!\d)|、|\s(?:and|&|und|et|y)\s|^and\s", re.IGNORECASE)


def is_grounded(answer: str, texts: Sequence[str]) -> bool:
    """Whether the answer occurs in one of the texts as whole words; or, if it is a list (commas,
    semicolons, lines, "and"), each of its parts does. False for an empty answer."""
    answer = unicodedata.normalize("NFKC", answer)
    normalised = [_normalised(text) for text in texts]
    if _is_in(answer, normalised):
        return True
    parts = [part for part in _BETWEEN.split(answer) if _stripped(part)]
    return bool(parts) and all(_is_in(part, normalised) for part in parts)


def _is_in(answer: str, texts: Sequence[str]) -> bool:
    """Without the signs at its ends; an underscore there may be a sign, or a part of a name."""
    words = _stripped(answer)
    return bool(words) and any(
        re.search(_not_before(form[0]) + re.escape(form) + _not_behind(form[-1]), text)
        for form in {words, _stripped(answer, "_")}
        for text in texts
    )


def _stripped(text: str, kept: str = "") -> str:
    """The normalised text without punctuation at its ends; kept: what is none."""
    text = _normalised(text)
    start, end = 0, len(text)
    while start < end and _is_punctuation(text[start]) and text[start] != kept:
        start += 1
    while start < end and _is_punctuation(text[end - 1]) and text[end - 1] != kept:
        end -= 1
    return text[start:end]


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _is_punctuation(char: str) -> bool:
    return char in " `" or unicodedata.category(char).startswith("P")


def _not_before(first: str) -> str:
    """Pattern of what must not precede an answer: more of its first word, or of its number."""
    number = r"(?<!\d\.)" if first.isdigit() else ""
    return number + (f"(?<!{_IN_WORD})" if re.match(_IN_WORD, first) else "")


def _not_behind(last: str) -> str:
    number = r"(?!\.\d)" if last.isdigit() else ""
    return number + (f"(?!{_IN_WORD})" if re.match(_IN_WORD, last) else "")
