"""Lines that say nothing a question asks for: the noise between the records.

Shapes follow real logs and talk; all numbers and most names in them are random.
It knows nothing of questions.
"""

from __future__ import annotations

from random import Random

from stream_app.sample import LEVELS, SERVICES, host, number, pool, version, word

MONTHS = pool("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")
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


def clock(rng: Random) -> str:
    """A time of day."""
    return f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"


def stamp(rng: Random) -> str:
    """A time, mostly without its date, which would take half the line's tokens."""
    choice = rng.random()
    if choice < 0.6:
        return clock(rng)
    if choice < 0.8:
        return f"{rng.choice(MONTHS)} {rng.randint(1, 28):2} {clock(rng)}"
    return f"20{rng.randint(10, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}T{clock(rng)}Z"


def _address(rng: Random) -> str:
    return ".".join(str(rng.randint(1, 254)) for _ in range(4))


def request(rng: Random) -> str:
    """An application line about a request."""
    start = f"{stamp(rng)} {rng.choice(LEVELS)} {rng.choice(SERVICES)}"
    return f"{start} request {number(rng)} done in {rng.randint(1, 900)} ms"


def access(rng: Random) -> str:
    """A line of a web server's access log."""
    status = rng.choice((200, 301, 404, 500))
    return f'{_address(rng)} - - "GET /{word(rng)}/{word(rng)}.html" {status} {number(rng)}'


def dpkg(rng: Random) -> str:
    """A line of a package manager's log."""
    return f"{stamp(rng)} status installed {word(rng)}:amd64 {version(rng)}-{rng.randint(1, 9)}"


def sshd(rng: Random) -> str:
    """A line of an ssh server's log."""
    start = f"{stamp(rng)} {host(rng)} sshd[{number(rng)}]:"
    return f"{start} Accepted publickey for {word(rng)} from {_address(rng)}"


def talk(rng: Random) -> str:
    """A turn of a meeting that states no figure."""
    return f"{word(rng).upper()}: {rng.choice(SMALL_TALK)}"


FILLERS = (request, access, dpkg, sshd, talk)
