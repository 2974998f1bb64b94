"""Ratio: one figure of a benchmark that does not depend on how fast the machine is."""

from typing import NamedTuple


class Ratio(NamedTuple):
    """What was held against what, what came of it, and what is aimed at."""

    what: str
    ratio: float
    goal: str
