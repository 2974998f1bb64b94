"""Passages of records, noise and questions: interleaved, or with the questions at the end.

A passage is a list of pieces, each of them text or an answer, so that the trainer knows what the
model must generate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from training.corpus.entities import Source
from training.corpus.generate import (
    TEMPLATE,
    Fact,
    Level,
    Record,
    again,
    fresh,
    joint_question,
    question,
)
from training.corpus.lines import FILLERS

QUESTIONS = 14


@dataclass(frozen=True)
class Piece:
    """A piece of text: `text`, an `answer`, or a `guess` without evidence before it.

    turn: the number of the question suffix it belongs to, from 1; 0 for the context.
    """

    text: str
    kind: str = "text"
    turn: int = 0


@dataclass
class Passage:
    """Pieces written so far, and the records in them."""

    pieces: list[Piece] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


def noise(source: Source, level: Level) -> str:
    """A line without any answer: generated, or real if the level has real text."""
    if level.real and source.rng.random() < 0.4:
        return source.rng.choice(level.real)
    return source.rng.choice(FILLERS)(source.rng)


def add_record(source: Source, level: Level, passage: Passage) -> None:
    """Adds noise, or a line that tells something new."""
    if source.rng.random() < level.filler:
        passage.pieces.append(Piece(noise(source, level) + "\n"))
        return
    pairs = [record for record in passage.records if "subject" in record.entities]
    if pairs and source.rng.random() < level.several:
        record = again(source, level, source.rng.choice(pairs))
    else:
        record = fresh(source, level, passage.records, level.shared)
    passage.records.append(record)
    passage.pieces.append(Piece(record.line))


def ask(source: Source, level: Level, passage: Passage, fact: Fact | None) -> None:
    """Asks for a fact; without one, asks for an absent fact, whose answer is a guess."""
    kind = "answer" if fact else "guess"
    if fact is None:
        told = fresh(source, level, passage.records, level.near).facts
        fact = source.rng.choice(told)
    if source.rng.random() < level.joint:
        _ask_two(source, level, passage, fact, kind)
        return
    if source.rng.random() < level.terse and fact.key[0] == "pair":
        text = f"{fact.key[1].split(' ')[1]} {fact.key[2]}? "
    else:
        text = _framed(source, question(source, level, fact))
    passage.pieces += [Piece(text), Piece(all_of(passage, fact) + "\n", kind)]


def all_of(passage: Passage, fact: Fact) -> str:
    """The fact's answer; if the passage has several values, all of them in its order."""
    told = [each for record in passage.records for each in record.facts if each.key == fact.key]
    return ", ".join(dict.fromkeys(each.answer for each in told)) or fact.answer


def _framed(source: Source, question: str) -> str:
    framed = TEMPLATE.format(question=question)
    return framed[1:] if source.rng.random() < 0.5 else framed


def _ask_two(source: Source, level: Level, passage: Passage, fact: Fact, kind: str) -> None:
    """Asks for two facts at once; the answer has the present ones, in that order."""
    told = [each for record in passage.records for each in record.facts if each.key != fact.key]
    if told and source.rng.random() < 0.7:
        pair = [(fact, kind == "answer"), (source.rng.choice(told), True)]
    else:
        absent = fresh(source, level, passage.records, level.near).facts[0]
        pair = [(fact, kind == "answer"), (absent, False)]
    source.rng.shuffle(pair)
    framed = _framed(source, joint_question(source, pair[0][0], pair[1][0]))
    answers = [all_of(passage, each) for each, present in pair if present]
    sure = "answer" if answers else "guess"
    text = ", ".join(answers) if answers else fact.answer
    passage.pieces += [Piece(framed), Piece(text + "\n", sure)]


def any_fact(source: Source, level: Level, passage: Passage) -> Fact:
    """A fact of the passage; with the probability `backward`, one whose value is before its key."""
    if level.backward and source.rng.random() < level.backward:
        told = [fact for record in passage.records for fact in record.facts if fact.backward]
        if told:
            return source.rng.choice(told)
    return source.rng.choice(source.rng.choice(passage.records).facts)


def dense(source: Source, level: Level, enough: Callable[[Passage], bool]) -> Passage:
    """Records and questions interleaved, until it is enough."""
    passage = Passage()
    for _ in range(source.rng.randint(1, 3)):
        add_record(source, level, passage)
    while not enough(passage):
        if source.rng.random() < 0.6 and passage.records:
            absent = source.rng.random() < level.absent
            ask(source, level, passage, None if absent else any_fact(source, level, passage))
        else:
            add_record(source, level, passage)
    return passage


def context(source: Source, level: Level, enough: Callable[[Passage], bool]) -> Passage:
    """Records and noise, until it is enough; some passages begin in the middle of a line."""
    passage = Passage()
    if source.rng.random() < 0.3:
        cut = noise(source, level)
        passage.pieces.append(Piece(cut[source.rng.randrange(len(cut) + 1) :] + "\n"))
    while not enough(passage) or not passage.records:
        add_record(source, level, passage)
    return passage


def single(
    source: Source, level: Level, enough: Callable[[Passage], bool], absent: bool
) -> Passage:
    """A context and one question, as in the method's prompt."""
    passage = context(source, level, enough)
    ask(source, level, passage, None if absent else any_fact(source, level, passage))
    return passage


def exam(source: Source, level: Level, enough: Callable[[Passage], bool]) -> Passage:
    """A context and several question suffixes: more to learn per token."""
    passage = context(source, level, enough)
    told = len(passage.pieces)
    for _ in range(QUESTIONS):
        absent = source.rng.random() < level.absent
        ask(source, level, passage, None if absent else any_fact(source, level, passage))
    for place in range(told, len(passage.pieces)):
        passage.pieces[place] = replace(passage.pieces[place], turn=1 + (place - told) // 2)
    return passage
