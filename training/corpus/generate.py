"""Generated records, and questions about them, to train and measure the bundled model.

Every name and value is random, so that nothing can be memorized and only lookup helps.
"""

from __future__ import annotations

from dataclasses import dataclass

from stream_app.sample_log import LEVELS, SERVICES
from training.corpus.entities import SMALL, Source, stamp
from training.corpus.formats import KINDS, OTHER_WORDS, PAIRS, Ask, Kind
from training.corpus.phrasings import wrap

TEMPLATE = "\nQuestion: {question}\nAnswer: "
SUBJECTS = ("host", "host", "order", "order", "order", "user", "service", "project")


@dataclass(frozen=True)
class Fact:
    """A fact of a line: its key, phrases that ask for it, and the answer."""

    key: tuple[str, ...]
    phrases: tuple[str, ...]
    answer: str
    others: tuple[str, ...] = ()
    backward: bool = False


@dataclass(frozen=True)
class Record:
    """One line, its facts, and the entities in it by kind."""

    line: str
    format: str
    facts: tuple[Fact, ...]
    entities: dict[str, str]


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
    shared: float = 0.0
    exams: float = 0.0
    terse: float = 0.0
    paired: float = 0.0
    joint: float = 0.0
    others: float = 0.0
    several: float = 0.0
    backward: float = 0.0
    real: tuple[str, ...] = ()


def known(records: list[Record]) -> set[tuple[str, ...]]:
    """The keys of all facts of the records."""
    return {fact.key for record in records for fact in record.facts}


def fresh(source: Source, level: Level, records: list[Record], shared: float) -> Record:
    """A record with new facts only; with the probability `shared` it resembles one of the others:
    it has the same format and an entity of it, or one with a single letter changed.
    """
    taken = known(records)
    while True:
        like = source.rng.choice(records) if records and source.rng.random() < shared else None
        record = draw(source, level, like)
        if not any(fact.key in taken for fact in record.facts):
            return record


def draw(source: Source, level: Level, like: Record | None = None) -> Record:
    """A record of one of the level's formats."""
    shape = source.rng.choice(level.shapes)
    if like and like.format in level.shapes and source.rng.random() < 0.8:
        shape = like.format
    kinds = [kind for kind in KINDS if kind.format == shape]
    if shape in PAIRS and (not kinds or source.rng.random() < 0.5):
        return _pair(source, level, shape, like)
    kind = source.rng.choice(kinds)
    return _line(source, level, kind, like)


def _taken_over(source: Source, like: Record | None) -> dict[str, str]:
    """One or two entities of another record, some of them changed in a letter."""
    if like is None:
        return {}
    names = [name for name in like.entities if name not in SMALL]
    some = source.rng.sample(names, min(len(names), source.rng.choice((1, 1, 2))))
    return {
        name: source.near(like.entities[name])
        if name != "field" and source.rng.random() < 0.4
        else like.entities[name]
        for name in some
    }


def _line(source: Source, level: Level, kind: Kind, like: Record | None) -> Record:
    """A line of one of the log and talk formats."""
    found = {slot: source.draw(slot) for slot in kind.slots}
    found |= {slot: text for slot, text in _taken_over(source, like).items() if slot in found}
    facts = tuple(_fact(kind, ask, found) for ask in kind.asks)
    time = stamp(source.rng) + " " if source.rng.random() < level.stamps else ""
    time = "" if kind.format == "talk" else time
    return Record(time + kind.line.format(**found) + "\n", kind.format, facts, found)


def _fact(kind: Kind, ask: Ask, found: dict[str, str]) -> Fact:
    """A fact; its key has the kind of line but no wording, so kinds never share a fact."""
    key = (kind.line, ask.answer, *(found[slot] for slot in ask.keys))
    phrases = tuple(phrase.format(**found) for phrase in ask.phrases)
    return Fact(key, phrases, found[ask.answer], backward=kind.backward(ask))


def _pair(source: Source, level: Level, shape: str, like: Record | None) -> Record:
    """A line that says the value of a field of a subject; some say two."""
    kind, name = source.rng.choice(SUBJECTS), source.field()
    found = {"subject": f"{kind} {source.draw(kind)}", "field": name}
    found |= {slot: text for slot, text in _taken_over(source, like).items() if slot in found}
    names = [found["field"]]
    if shape in ("app", "json") and source.rng.random() < level.paired:
        names = list(dict.fromkeys((*names, source.field())))
    source.rng.shuffle(names)
    told = {each: source.value(each) for each in names}
    time = stamp(source.rng) if source.rng.random() < level.stamps else ""
    line = _paired_line(source, shape, time, found["subject"], told)
    facts = tuple(pair_fact(found["subject"], each, told[each]) for each in told)
    return Record(line + "\n", shape, facts, found)


def again(source: Source, level: Level, record: Record) -> Record:
    """Another line about the same field of the same subject, with another value."""
    name = record.entities["field"]
    fact = pair_fact(record.entities["subject"], name, source.value(name))
    shape = source.rng.choice([shape for shape in level.shapes if shape in PAIRS])
    time = stamp(source.rng) if source.rng.random() < level.stamps else ""
    line = _paired_line(source, shape, time, record.entities["subject"], {name: fact.answer})
    return Record(line + "\n", shape, (fact,), record.entities)


def pair_fact(subject: str, name: str, value: str) -> Fact:
    """The fact that a field of a subject has a value."""
    bare = subject.split(" ")[1]
    whole = f"Which {name} does {bare} have?"
    phrases = (f"the {name} of {bare}", f"the {name} of {subject}", whole)
    others = tuple(
        phrase.format(each) for phrase in OTHER_WORDS.get(name, ()) for each in (subject, bare)
    )
    return Fact(("pair", subject, name), phrases, value, others)


def _paired_line(source: Source, shape: str, time: str, subject: str, told: dict[str, str]) -> str:
    """The text of a line that tells fields of a subject."""
    rng, (kind, bare) = source.rng, subject.split(" ")
    first, value = next(iter(told.items()))
    if shape == "bare":
        return f"{bare} {first} {value}"
    if shape == "json":
        begun = {"ts": time} if time else {}
        fields = {**begun, "level": rng.choice(LEVELS).lower(), kind: bare, **told}
        return "{" + ",".join(f'"{key}":"{text}"' for key, text in fields.items()) + "}"
    time = time and time + " "
    if shape == "app":
        start = f"{rng.choice(LEVELS)} {rng.choice(SERVICES)} " if rng.random() < 0.7 else ""
        return f"{time}{start}{kind}={bare} " + " ".join(f"{k}={v}" for k, v in told.items())
    if shape == "syslog":
        return f"{time}{bare} {rng.choice(SERVICES)}[{source.draw('pid')}]: {first} {value}"
    said = rng.choice((f"the {first} of {bare} is {value}", f"for {bare} the {first} is {value}"))
    return f"{source.draw('word').upper()}: {said}"


def question(source: Source, level: Level, fact: Fact) -> str:
    """A question for the fact, sometimes in words that do not occur in the line."""
    if fact.others and source.rng.random() < level.others:
        return wrap(source, source.rng.choice(fact.others), level.phrasings)
    phrases = fact.phrases if level.phrasings > 1 else fact.phrases[:1]
    return wrap(source, source.rng.choice(phrases), level.phrasings)


def joint_question(source: Source, one: Fact, other: Fact) -> str:
    """A question for two facts at once."""
    names = [
        next((phrase for phrase in fact.phrases if not phrase.endswith("?")), "")
        for fact in (one, other)
    ]
    return wrap(source, f"{names[0]} and {names[1]}")
