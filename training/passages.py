"""Passages of records, noise and questions: interleaved, or with the questions at the end.

A passage is a list of pieces, each of them text or an answer, so that the trainer knows what
the model is to write. It knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from training.generate import (
    TEMPLATE,
    Level,
    Record,
    draw_field,
    draw_key,
    draw_value,
    keys,
    question,
    write,
)
from training.lines import FILLERS


@dataclass(frozen=True)
class Piece:
    """A stretch of text: `text`, an `answer`, or a `guess` that nothing before it tells."""

    text: str
    kind: str = "text"


@dataclass
class Passage:
    """Pieces written so far, and the records in them."""

    pieces: list[Piece] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


def noise(rng: Random, level: Level) -> str:
    """A line that answers nothing: made up, or real where there is real text."""
    if level.real and rng.random() < 0.4:
        return rng.choice(level.real)
    return rng.choice(FILLERS)(rng)


def add_record(rng: Random, level: Level, passage: Passage) -> None:
    """Adds noise, or a line of records with fresh keys."""
    if rng.random() < level.filler:
        passage.pieces.append(Piece(noise(rng, level) + "\n"))
        return
    taken = keys(passage.records)
    key = draw_key(rng, passage.records, level.shared, level.rivals)
    extra = draw_field(rng) if rng.random() < level.paired else key[1]
    used = extra == key[1] or (key[0], extra) in taken
    records = write(rng, level, key, () if used else (extra,))
    passage.records += records
    passage.pieces.append(Piece(records[0].line))


def ask(rng: Random, level: Level, passage: Passage, record: Record | None) -> None:
    """Asks for what the record tells, or else for what none does: then any value is right."""
    if record is None:
        subject, name = draw_key(rng, passage.records, level.near, rivals=0.35)
        answer = Piece(draw_value(rng, name) + "\n", "guess")
    else:
        subject, name = record.subject, record.field
        answer = Piece(record.value + "\n", "answer")
    if rng.random() < level.terse:
        asked = f"{subject.split(' ')[1]} {name}? "
    else:
        asked = TEMPLATE.format(question=question(rng, subject, name, level.phrasings))
        asked = asked[1:] if rng.random() < 0.5 else asked
    passage.pieces += [Piece(asked), answer]


def dense(rng: Random, level: Level, enough: Callable[[Passage], bool]) -> Passage:
    """Records and questions interleaved, until there is enough of them."""
    passage = Passage()
    for _ in range(rng.randint(1, 3)):
        add_record(rng, level, passage)
    while not enough(passage):
        if rng.random() < 0.6 and passage.records:
            absent = rng.random() < level.absent
            ask(rng, level, passage, None if absent else rng.choice(passage.records))
        else:
            add_record(rng, level, passage)
    return passage


def context(rng: Random, level: Level, enough: Callable[[Passage], bool]) -> Passage:
    """Records and noise, until there is enough; some begin in the middle of a line."""
    passage = Passage()
    if rng.random() < 0.3:
        cut = noise(rng, level)
        passage.pieces.append(Piece(cut[rng.randrange(len(cut) + 1) :] + "\n"))
    while not enough(passage) or not passage.records:
        add_record(rng, level, passage)
    return passage


def single(rng: Random, level: Level, enough: Callable[[Passage], bool], absent: bool) -> Passage:
    """A context with one question behind it, as the method asks it."""
    passage = context(rng, level, enough)
    ask(rng, level, passage, None if absent else rng.choice(passage.records))
    return passage


def exam(rng: Random, level: Level, enough: Callable[[Passage], bool]) -> Passage:
    """A context with questions about many of its records behind it: more to learn per token."""
    passage = context(rng, level, enough)
    for record in rng.sample(passage.records, min(8, len(passage.records))):
        ask(rng, level, passage, record)
        if rng.random() < level.absent:
            ask(rng, level, passage, None)
    return passage
