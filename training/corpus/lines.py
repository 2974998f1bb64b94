"""Lines without any answer, as noise between the records: requests, talk and plain prose."""

from __future__ import annotations

from random import Random

from stream_app.sample_log import LEVELS, SERVICES, number, word
from training.corpus.entities import stamp

SMALL_TALK = (
    "I think we should move on to the next point",
    "yes , that is what we agreed last time",
    "could you say a little more about that ?",
    "thank you , I will take that away and come back",
    "the numbers are in the report , as far as I know",
    "we have no more questions on this one",
    "let us come back to that in the next meeting",
    "I am not sure that this is the right place for it",
)
OPENINGS = ("In the morning", "After a while", "As always", "Before long", "On the hill", "Later")
ACTORS = ("the old man", "a neighbour", "the river", "nobody", "the teacher", "her brother")
DEEDS = ("went on without a word", "took the long way home", "had little to say", "waited outside")
ENDINGS = (
    "because the rain would not stop",
    "and that was all",
    "as far as one knew",
    "at last",
)


def request(rng: Random) -> str:
    """An application line about a request."""
    start = f"{stamp(rng)} {rng.choice(LEVELS)} {rng.choice(SERVICES)}"
    return f"{start} request {number(rng)} done in {rng.randint(1, 900)} ms"


def talk(rng: Random) -> str:
    """A turn of a meeting that states no figure."""
    return f"{word(rng).upper()}: {rng.choice(SMALL_TALK)}"


def prose(rng: Random) -> str:
    """A sentence of plain prose."""
    parts = (rng.choice(words) for words in (OPENINGS, ACTORS, DEEDS, ENDINGS))
    opening, actor, deed, ending = parts
    return f"{opening}, {actor} {deed} {ending}."


FILLERS = (request, talk, prose)
