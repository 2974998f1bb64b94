"""Lines of random tokens, each a value before its key, and then the keys asked for.

    value between key \n ... key ? value \n key ? value \n

The shortest way to learn finding what stands before that by which it is found: among words a
model has guessed it, and never came to look. It knows tokens, not what they say.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from training.batch import PADDING, Row

ASKED = 12
FIRST = 30
"""The first token of an alphabet: those before it are special, or rare."""


@dataclass(frozen=True)
class Pairs:
    """So many lines, of at most so many tokens of each kind, out of an alphabet; 0: all tokens."""

    lines: int
    value: int = 1
    key: int = 1
    between: int = 0
    alphabet: int = 60


@dataclass(frozen=True)
class Signs:
    """Token ids: what begins a row, ends a line and ends a key asked for; digits; how many."""

    begin: int
    newline: int
    ask: int
    digits: tuple[int, ...]
    vocabulary: int


def pairs_row(rng: Random, level: Pairs, signs: Signs) -> Row:
    """Such lines, and their keys side by side behind them; only values are to be predicted."""
    between = _some(rng, level, signs, rng.randint(0, level.between))
    told = dict[tuple[int, ...], list[int]]()
    while len(told) < level.lines:
        key = tuple(_some(rng, level, signs, rng.randint(1, level.key)))
        told[key] = _value(rng, level, signs)
    row = Row([signs.begin], [PADDING], [0])
    for key, value in told.items():
        row.add([*value, *between, *key, signs.newline], PADDING, 0)
    for turn, key in enumerate(rng.sample([*told], min(ASKED, len(told))), 1):
        row.add([signs.newline, *key, signs.ask], PADDING, turn)
        row.add([*told[key], signs.newline], 1, turn)
    return row


def _value(rng: Random, level: Pairs, signs: Signs) -> list[int]:
    """Random tokens, or a number."""
    length = rng.randint(1, level.value)
    if level.value > 1 and rng.random() < 0.5:
        return rng.choices(signs.digits, k=length)
    return _some(rng, level, signs, length)


def _some(rng: Random, level: Pairs, signs: Signs, length: int) -> list[int]:
    last = FIRST + level.alphabet if level.alphabet else signs.vocabulary
    return [rng.randrange(FIRST, last) for _ in range(length)]
