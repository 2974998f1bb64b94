"""A made-up service log with known answers, for the demo and for trying a model.

The same seed gives the same log. Lines have the shapes that the bundled model was trained on.
"""

from dataclasses import dataclass
from random import Random


def pool(words: str) -> tuple[str, ...]:
    """The words of a text, as choices."""
    return tuple(words.split())


ROLES = pool("web db cache api queue edge mail auth proxy node store batch")
SERVICES = pool("billing checkout search gateway shipping payments catalog inventory mailer")
LEVELS = ("INFO", "WARN", "DEBUG", "ERROR")
NUMBER_FIELDS = pool(
    "port latency retries quota balance threads total depth budget code limit timeout "
    "size count weight score rate price delay load memory target"
)
WORD_FIELDS = pool("owner region cluster carrier status leader mode zone team color plan sponsor")
FIELDS = (*NUMBER_FIELDS, *WORD_FIELDS, "version")
ONSETS = pool("b br c d dr f g gr h j k l m n p pr r s st t tr v w z")
NUCLEI = pool("a e i o u ai ea ou")
CODAS = ["", "", "", "l", "n", "r", "s", "t", "x", "m"]


@dataclass(frozen=True)
class Fact:
    """A question, its answer, and the line (from 0) that contains the answer."""

    question: str
    answer: str
    line: int


def word(rng: Random) -> str:
    """A pronounceable word of two or three syllables, one of millions."""
    parts = (rng.choice(ONSETS) + rng.choice(NUCLEI) for _ in range(rng.choice((2, 2, 3))))
    return "".join(parts) + rng.choice(CODAS)


def number(rng: Random) -> str:
    """A number of three to five digits, every length equally often."""
    digits = rng.choice((3, 4, 5))
    return str(rng.randrange(10 ** (digits - 1), 10**digits))


def version(rng: Random) -> str:
    """A version such as 2.14.3."""
    return f"{rng.randint(0, 9)}.{rng.randint(0, 29)}.{rng.randint(0, 9)}"


def host(rng: Random) -> str:
    """A host name such as web-173."""
    return f"{rng.choice(ROLES)}-{rng.randint(1, 999)}"


def value(rng: Random, field: str) -> str:
    """A value of the field's type."""
    return version(rng) if field == "version" else (word if field in WORD_FIELDS else number)(rng)


def _key(rng: Random, used: set[tuple[str, str]], last: str) -> tuple[str, str]:
    """A subject and field that are not in the log yet; half reuse the last subject."""
    while True:
        subject = rng.choice((f"host {host(rng)}", f"order {number(rng)}", f"user {word(rng)}"))
        key = last if last and rng.random() < 0.5 else subject, rng.choice(FIELDS)
        if key not in used:
            return key


def service_log(lines: int, seed: int) -> tuple[list[str], list[Fact]]:
    """A log of that many lines, and one fact for each line that reports a value."""
    rng, used, subject = Random(seed), set[tuple[str, str]](), ""
    log, facts = list[str](), list[Fact]()
    for index in range(lines):
        clock = f"{index // 3600 % 24:02}:{index // 60 % 60:02}:{index % 60:02}"
        start = f"{clock} {rng.choice(LEVELS)} {rng.choice(SERVICES)}"
        if rng.random() < 0.4:
            log.append(f"{start} request {number(rng)} done in {rng.randint(1, 900)} ms")
            continue
        subject, field = _key(rng, used, subject)
        used.add((subject, field))
        answer = value(rng, field)
        log.append(f"{start} {subject.replace(' ', '=')} {field}={answer}")
        facts.append(Fact(f"What is the {field} of {subject}?", answer, index))
    return log, facts
