"""Made-up records, and questions about them, for training and measuring the small model.

Every name and value is random, so that nothing can be memorised and only looking up helps.
It knows nothing of tokens, of models, or of how records make a passage.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from stream_app.sample import FIELDS, LEVELS, SERVICES, host, number, value, version, word
from training.lines import stamp

TEMPLATE = "\nQuestion: {question}\nAnswer: "
SUBJECTS = {
    "host": host,
    "order": number,
    "user": word,
    "service": word,
    "project": word,
}


@dataclass(frozen=True)
class Record:
    """One line and what it says: the value of a field of a subject."""

    line: str
    subject: str
    field: str
    value: str
    shape: str


@dataclass(frozen=True)
class Level:
    """How hard the passages of one step of the curriculum are."""

    tokens: int
    shapes: tuple[str, ...]
    filler: float = 0.0
    stamps: float = 0.0
    phrasings: int = 1
    absent: float = 0.03
    near: float = 0.7
    rivals: float = 0.5
    shared: float = 0.0
    tail: float = 0.0
    exams: float = 0.0
    terse: float = 0.0
    paired: float = 0.0
    real: tuple[str, ...] = ()


def draw_field(rng: Random) -> str:
    """A field; one in four is a made-up word, so that no list of them is learnt."""
    return word(rng) if rng.random() < 0.25 else rng.choice(FIELDS)


def draw_value(rng: Random, name: str) -> str:
    """A value of the kind the field holds; a made-up field may hold any kind."""
    return value(rng, name) if name in FIELDS else rng.choice((number, word, version))(rng)


def draw_subject(rng: Random) -> str:
    """What a record is about, such as "host web-17"; the kinds hard to tell apart more often."""
    kind = rng.choices(tuple(SUBJECTS), (4, 6, 3, 3, 3))[0]
    return f"{kind} {SUBJECTS[kind](rng)}"


def keys(records: list[Record]) -> set[tuple[str, str]]:
    """What the records tell, each a subject and a field."""
    return {(record.subject, record.field) for record in records}


def draw_key(
    rng: Random, records: list[Record], shared: float, rivals: float = 0.5
) -> tuple[str, str]:
    """A key no record has; with the chance `shared` it has one part in common with some.

    With the chance `rivals` that part is the field, so that only the subject tells them apart.
    """
    taken = keys(records)
    while True:
        subject, name = draw_subject(rng), draw_field(rng)
        if records and rng.random() < shared:
            near = rng.choice(records)
            if rng.random() < rivals:
                name = near.field
            else:
                subject = near.subject
        if (subject, name) not in taken:
            return subject, name


def write(rng: Random, level: Level, key: tuple[str, str], more: tuple[str, ...]) -> list[Record]:
    """The records of one line in one of the level's shapes; an app line may hold more fields."""
    shape, (subject, name) = rng.choice(level.shapes), key
    names = [name, *more] if shape == "app" else [name]
    rng.shuffle(names)
    told = {each: draw_value(rng, each) for each in names}
    time = stamp(rng) + " " if rng.random() < level.stamps else ""
    line = _line(rng, shape, time, subject, told) + "\n"
    return [Record(line, subject, each, value, shape) for each, value in told.items()]


def _line(rng: Random, shape: str, time: str, subject: str, told: dict[str, str]) -> str:
    bare, (name, value) = subject.split(" ")[1], next(iter(told.items()))
    if shape == "bare":
        return f"{bare} {name}={value}"
    if shape == "app":
        log = f"{time}{rng.choice(LEVELS)} {rng.choice(SERVICES)} " if time else ""
        return " ".join([log + subject.replace(" ", "="), *(f"{f}={v}" for f, v in told.items())])
    if shape == "syslog":
        return f"{time}{bare} {rng.choice(SERVICES)}[{number(rng)}]: {name} {value}"
    said = rng.choice((f"the {name} of {bare} is {value}", f"for {bare} the {name} is {value}"))
    return f"{word(rng).upper()}: {said}"


def question(rng: Random, subject: str, name: str, phrasings: int = 4) -> str:
    """One of the first few ways of asking for a field."""
    bare = subject.split(" ")[1]
    forms = (
        f"{name} of {bare}?",
        f"What is the {name} of {subject}?",
        f"What is the {name} of {bare}?",
        f"Which {name} does {bare} have?",
    )
    return rng.choice(forms[:phrasings])
