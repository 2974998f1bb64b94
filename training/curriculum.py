"""The steps of the curriculum: random tokens, then short passages, then the full window.

A step is passed when enough answers are right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from training.corpus.formats import ALL
from training.corpus.generate import Level
from training.random_pairs import Pairs

FIRST = ("app", "syslog", "talk")
SHORT = Level(128, ("bare", *FIRST), filler=0.1, stamps=0.3, phrasings=99, absent=0.05, shared=0.6)
HARD = Level(
    512,
    ALL,
    filler=0.3,
    stamps=0.6,
    phrasings=99,
    absent=0.15,
    shared=0.6,
    paired=0.3,
    joint=0.15,
    others=0.3,
    several=0.15,
    backward=0.5,
)


@dataclass(frozen=True)
class Step:
    """Its passages, the share of answer tokens that must be right, and the tokens of a batch."""

    level: Pairs | Level
    gate: float
    tokens: int = 2048


BEFORE = (  # to look up what stands before its key is not learnt from text alone
    Step(Pairs(4), 0.96),
    Step(Pairs(8), 0.96),
    Step(Pairs(12, alphabet=200), 0.96),
    Step(Pairs(12, value=2, key=2, alphabet=400), 0.96),
    Step(Pairs(10, value=3, key=2, between=2, alphabet=0), 0.96),
    Step(Pairs(8, value=5, key=3, between=4, alphabet=0), 0.96),
    Step(Pairs(14, value=5, key=3, between=6, alphabet=0), 0.96, 4096),
    Step(Pairs(8, between=1, fields=1), 0.96),
    Step(Pairs(12, value=2, key=2, between=2, alphabet=400, fields=2), 0.93),
    Step(Pairs(24, value=5, key=3, between=3, alphabet=0, fields=3), 0.93, 4096),
)
TEXTS = (
    Step(Level(64, ("bare",), terse=1.0), 0.9),
    Step(Level(64, ("bare",), terse=0.3), 0.9),
    Step(Level(80, ("bare",), shared=0.3, phrasings=2), 0.9),
    Step(Level(96, ("bare", *FIRST), shared=0.5, phrasings=4), 0.92),
    Step(SHORT, 0.93),
    Step(replace(HARD, tokens=192, filler=0.1, absent=0.1, exams=0.3, joint=0.0), 0.9, 2560),
    Step(replace(HARD, tokens=256, exams=0.7), 0.93, 3072),
    Step(replace(HARD, tokens=384, exams=0.75), 0.95, 3584),
    Step(replace(HARD, exams=0.95), 1.0, 4096),
)
STEPS = (*BEFORE, *TEXTS)
HARD_AT = next(n for n, step in enumerate(STEPS) if getattr(step.level, "shapes", ()) == ALL)
"""The first step with all formats."""
DRILL = replace(
    STEPS[HARD_AT],
    level=replace(
        HARD, tokens=192, filler=0.1, shared=0.95, exams=0.6, absent=0.25, near=0.95, joint=0.1
    ),
)


def chosen(rng: Random, number: int) -> Step:
    """The step of that number, a drill, pairs, or now and then an easier step."""
    chance = rng.random()
    if number > HARD_AT and chance < 0.1:
        return DRILL
    if number >= len(BEFORE) and chance < 0.2:
        return BEFORE[-1]
    if number and chance > 0.9:
        number = rng.randrange(max(0, number - 3), number)
    return STEPS[number]
