"""A generated stream of any length with needles at given depths, each among look-alikes.

Its lines have the formats the small model was trained on, with names and wordings held out of the
training (its model card says how far). The text is generated as it is read, the same each time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from random import Random

from training.corpus.entities import Source
from training.corpus.formats import ALL, PAIRS
from training.corpus.generate import Level, Record, again, draw, fresh, joint_question, question
from training.corpus.lines import FILLERS

VARIANTS = ("multikey", "multivalue", "two", "other_words")
LEVEL = Level(0, ALL, stamps=0.6, phrasings=99, paired=0.3)
BRIEF = ("sshd", "spark", "systemd", *PAIRS[1:])  # two questions in one must fit the window
NOISE = 0.3
LOOK_ALIKES = 8  # lines per needle that share an entity with it, or one with a letter changed
CHUNK_LINES = 100
LINE_TOKENS = 60  # of a long line; only lines that surely fit are written


@dataclass(frozen=True)
class Needle:
    """A question, its exact answer, and the whole lines that tell it; depth from 0 to 1."""

    question: str
    answer: str
    lines: tuple[str, ...]
    depth: float

    def told_by(self, texts: Sequence[str]) -> bool:
        """Whether all its lines are in the texts."""
        return all(any(line in text for text in texts) for line in self.lines)


class Haystack:
    """Text of that many tokens, at most a line less, in chunks of whole lines; a needle per depth.

    count: returns the lengths of texts in tokens. Needles of the variants "multivalue" and "two"
    have a second line, as far from the end as the first is from the beginning. Look-alikes take
    at most half of the tokens besides the needles, so a short text has fewer of them.
    """

    def __init__(
        self,
        count: Callable[[list[str]], list[int]],
        tokens: int,
        variant: str = "multikey",
        seed: int = 0,
        depths: Sequence[float] = (0.5,),
    ) -> None:
        self.count, self.tokens, self.seed = count, tokens, seed
        source, records = Source(Random(seed), held_out=True), list[Record]()
        planted, needles = list[tuple[float, str]](), list[Needle]()
        for depth in depths:
            needle, more = _needle(source, variant, depth, records)
            needles.append(needle)
            records += more
            places = (depth, 1 - depth)
            planted += [(places[i % 2], line) for i, line in enumerate(needle.lines)]
        self.needles = tuple(needles)
        self.taken = {fact.key for record in records for fact in record.facts}
        room = tokens - sum(count([line for _, line in planted]))
        alike = [*_look_alikes(source, records)]
        sizes = [*accumulate(count(alike))]
        fitting = bisect_right(sizes, room // 2)
        self.noise = room - max(sizes[:fitting], default=0)
        spread = [((i + source.rng.random()) / fitting, alike[i]) for i in range(fitting)]
        self.planted = sorted(planted + spread)
        if self.noise < 0:
            raise ValueError(
                f"the needles' lines do not fit {tokens} tokens: give fewer depths per text"
            )

    def __iter__(self) -> Iterator[str]:
        """The same chunks each time."""
        source, written = Source(Random(self.seed + 1), held_out=True), 0
        for depth, line in [*self.planted, (1.0, "")]:
            while (room := round(depth * self.noise) - written) >= LINE_TOKENS:
                lines = min(CHUNK_LINES, room // LINE_TOKENS)
                text = "".join(self._line(source) for _ in range(lines))
                written += self.count([text])[0]
                yield text
            yield line

    def _line(self, source: Source) -> str:
        """Noise, or a line without the facts of any needle or look-alike."""
        if source.rng.random() < NOISE:
            return source.rng.choice(FILLERS)(source.rng) + "\n"
        while True:
            record = draw(source, LEVEL)
            if not any(fact.key in self.taken for fact in record.facts):
                return record.line


def _look_alikes(source: Source, records: list[Record]) -> Iterator[str]:
    """Lines that share something with the records, in rounds of one line per record."""
    for _ in range(LOOK_ALIKES):
        for record in records:
            yield fresh(source, replace(LEVEL, shapes=(record.format,)), records, 1.0).line


def _needle(
    source: Source, variant: str, depth: float, records: list[Record]
) -> tuple[Needle, list[Record]]:
    """A needle, and the records of its lines."""
    if variant == "two":
        return _two(source, depth, records)
    if variant == "multikey":
        record = fresh(source, LEVEL, records, 0.0)
        fact = source.rng.choice(record.facts)
        return Needle(question(source, LEVEL, fact), fact.answer, (record.line,), depth), [record]
    pairs = replace(LEVEL, shapes=PAIRS[1:], paired=0.0)
    if variant == "multivalue":
        return _several(source, pairs, depth, records)
    while True:
        record = fresh(source, pairs, records, 0.0)
        fact = record.facts[0]
        if fact.others:
            asked = question(source, replace(pairs, others=1.0), fact)
            return Needle(asked, fact.answer, (record.line,), depth), [record]


def _two(source: Source, depth: float, records: list[Record]) -> tuple[Needle, list[Record]]:
    """A question about two facts of different lines."""
    level = replace(LEVEL, shapes=BRIEF)
    one = fresh(source, level, records, 0.0)
    other = fresh(source, level, [*records, one], 0.0)
    facts = [source.rng.choice(record.facts) for record in (one, other)]
    asked = joint_question(source, *facts)
    answer = ", ".join(fact.answer for fact in facts)
    return Needle(asked, answer, (one.line, other.line), depth), [one, other]


def _several(
    source: Source, level: Level, depth: float, records: list[Record]
) -> tuple[Needle, list[Record]]:
    """A question about a field that two lines give different values."""
    while True:
        one = fresh(source, level, records, 0.0)
        if "subject" in one.entities:
            break
    other, fact = again(source, level, one), one.facts[0]
    answer = f"{fact.answer}, {other.facts[0].answer}"
    asked = question(source, level, fact)
    return Needle(asked, answer, (one.line, other.line), depth), [one]
