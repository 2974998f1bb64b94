"""Lines of random tokens, each with named fields and a key, followed by questions.

    value between key \\n ... key ? value \\n key ? value \\n
    name value name value between key name value \\n ... key name ? value \\n

The quickest way to learn lookup: finding the value before a key, and the right one of several. With
real words, models guessed the value and never learned to look it up.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from training.batch import PADDING, Row

MAX_QUESTIONS = 12
FIRST = 30
"""The first token of an alphabet; smaller ids are special tokens, digits and signs."""


@dataclass(frozen=True)
class Pairs:
    """The most lines, and the most tokens of each part; alphabet: how many tokens to draw from (0:
    all).

    between: tokens before the key, and of a field's name. fields: further fields besides the first,
    which has no name if it is the only one. room: tokens of all lines together.
    """

    lines: int
    value: int = 1
    key: int = 1
    between: int = 0
    alphabet: int = 60
    fields: int = 0
    room: int = 440


@dataclass(frozen=True)
class Signs:
    """Token ids: start of a row, end of a line, end of a key, digits; and their number."""

    begin: int
    newline: int
    ask: int
    digits: tuple[int, ...]
    vocabulary: int


@dataclass(frozen=True)
class Line:
    """A line's tokens, and its values."""

    line: list[int]
    values: list[list[int]]


def pairs_row(rng: Random, level: Pairs, signs: Signs) -> Row:
    """The lines, then the question suffixes; only values are predicted."""
    between = _some(rng, level, signs, rng.randint(0, level.between))
    names = _names(rng, level, signs)
    place = rng.randint(1, len(names))
    row, told = Row([signs.begin], [PADDING], [0]), dict[tuple[int, ...], Line]()
    while len(told) < level.lines and len(row.ids) < level.room:
        key = tuple(_text(rng, level, signs, level.key))
        if key in told:
            continue
        values = [_text(rng, level, signs, level.value) for _ in names]
        fields = [name + value for name, value in zip(names, values, strict=True)]
        line = sum([*fields[:place], between, [*key], *fields[place:]], list[int]())
        told[key] = Line(line, values)
        row.add([*line, signs.newline], PADDING, 0)
    for turn, key in enumerate(rng.sample([*told], min(MAX_QUESTIONS, len(told))), 1):
        field = rng.randrange(len(names))
        row.add([signs.newline, *key, *names[field], signs.ask], PADDING, turn)
        row.add([*told[key].values[field], signs.newline], 1, turn)
    return row


def _names(rng: Random, level: Pairs, signs: Signs) -> list[list[int]]:
    """The fields' names, all different; none if there is only one field."""
    if not level.fields:
        return [[]]
    names, count = list[list[int]](), rng.randint(1, 1 + level.fields)
    while len(names) < count:
        name = _some(rng, level, signs, rng.randint(1, max(1, level.between)))
        if name not in names:
            names.append(name)
    return names


def _text(rng: Random, level: Pairs, signs: Signs, most: int) -> list[int]:
    """Random tokens, or a number."""
    length = rng.randint(1, most)
    if most > 1 and rng.random() < 0.5:
        return rng.choices(signs.digits, k=length)
    return _some(rng, level, signs, length)


def _some(rng: Random, level: Pairs, signs: Signs, length: int) -> list[int]:
    last = FIRST + level.alphabet if level.alphabet else signs.vocabulary
    some = list[int]()
    while len(some) < length:
        token = rng.randrange(FIRST, last)
        if token not in (signs.newline, signs.ask):
            some.append(token)
    return some
