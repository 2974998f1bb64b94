"""Random hosts, users, addresses, paths, amounts and the like, in two disjoint halves.

A value's checksum decides whether it belongs to training or is held out; small sets, such as days
or exit statuses, are in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from zlib import crc32

from stream_app.sample_log import FIELDS, host, number, pool, value, version, word

HELD_OUT = 8  # one value in eight
MONTHS = pool("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")
STATUSES = pool("200 301 404 500")
DAYS = pool("Monday Tuesday Wednesday Thursday Friday")


def clock(rng: Random) -> str:
    """A time of day."""
    return f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"


def date(rng: Random) -> str:
    """A day."""
    return f"20{rng.randint(10, 29)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def stamp(rng: Random) -> str:
    """A time, mostly without its date, which would take half of the line's tokens."""
    choice = rng.random()
    if choice < 0.6:
        return clock(rng)
    if choice < 0.8:
        return f"{rng.choice(MONTHS)} {rng.randint(1, 28):2} {clock(rng)}"
    return f"{date(rng)}T{clock(rng)}Z"


def address(rng: Random) -> str:
    """An IPv4 address."""
    return ".".join(str(rng.randint(1, 254)) for _ in range(4))


def path(rng: Random) -> str:
    """A path with two or three parts."""
    parts = [word(rng) for _ in range(rng.choice((1, 2, 2)))]
    return "/" + "/".join(parts) + rng.choice((".html", ".txt", ".log", "", ".json"))


def block(rng: Random) -> str:
    """A block of a distributed file system."""
    digits = rng.randint(6, 19)
    return f"blk_{rng.choice(('', '-'))}{rng.randrange(10 ** (digits - 1), 10**digits)}"


def package(rng: Random) -> str:
    """A package's name."""
    return rng.choice(("lib{}", "{}", "{}-dev", "python3-{}")).format(word(rng))


def package_version(rng: Random) -> str:
    """A version of a package."""
    return f"{version(rng)}-{rng.randint(1, 9)}"


def amount(rng: Random) -> str:
    """A size in memory."""
    return f"{rng.randint(1, 999)}.{rng.randint(0, 9)} {rng.choice(('KB', 'MB', 'GB'))}"


def identifier(rng: Random) -> str:
    """A hexadecimal id."""
    return f"{rng.getrandbits(32):08x}"


def price(rng: Random) -> str:
    """An amount of money."""
    return f"{rng.randint(2, 99) * 50} euros"


def moment(rng: Random) -> str:
    """A time as people say it."""
    return f"{rng.randint(1, 12)}:{rng.randrange(60):02} {rng.choice(('am', 'pm'))}"


def count(rng: Random) -> str:
    """A small number."""
    return str(rng.randint(1, 999))


DRAWS: dict[str, Callable[[Random], str]] = {
    "host": host,
    "user": word,
    "name": lambda rng: word(rng).capitalize(),
    "NAME": lambda rng: word(rng).upper(),
    "status": lambda rng: rng.choice(STATUSES),
    "ip": address,
    "peer": address,
    "port": number,
    "pid": number,
    "num": number,
    "size": number,
    "count": count,
    "path": path,
    "block": block,
    "package": package,
    "old": package_version,
    "new": package_version,
    "unit": word,
    "group": word,
    "topic": lambda rng: f"{word(rng)}-{rng.randint(0, 31)}",
    "member": identifier,
    "rdd": lambda rng: f"rdd_{rng.randint(1, 99)}_{rng.randint(0, 99)}",
    "amount": amount,
    "free": amount,
    "price": price,
    "moment": moment,
    "day": lambda rng: rng.choice(DAYS),
    "version": version,
    "word": word,
    "order": number,
    "service": word,
    "project": word,
}
TOO_HIGH = re.compile(r"\d\.(25[6-9]|2[6-9]\d|[3-9]\d\d)\b|^(25[6-9]|2[6-9]\d|[3-9]\d\d)\.\d")
SMALL = {"day", "count", "moment", "price", "status"}  # too few to hold any out


class Source:
    """Draws entities from one of the halves."""

    def __init__(self, rng: Random, held_out: bool = False) -> None:
        self.rng, self.held_out = rng, held_out

    def draw(self, kind: str) -> str:
        """An entity of that kind."""
        if kind in SMALL:
            return DRAWS[kind](self.rng)
        while True:
            drawn = DRAWS[kind](self.rng)
            if self._mine(drawn):
                return drawn

    def field(self) -> str:
        """A field's name; one in five is a made-up word, so that no list of them is learned."""
        return self.draw("word") if self.rng.random() < 0.2 else self.rng.choice(FIELDS)

    def value(self, name: str) -> str:
        """A value of the kind the field holds; a made-up field may hold any kind."""
        kind = self.rng.choice(("num", "word", "version"))
        while name not in FIELDS:
            return self.draw(kind)
        while True:
            drawn = value(self.rng, name)
            if self._mine(drawn):
                return drawn

    def near(self, text: str) -> str:
        """The text with a digit, or else a letter, of its last word changed; of the same half."""
        places = [at for at in range(text.rfind(" ") + 1, len(text)) if text[at].isalnum()]
        places = [at for at in places if text[at].isdigit()] or places
        for at in self.rng.sample(places, len(places)):
            signs = "123456789" if text[at].isdigit() else "abdefgiklmnoprstuvz"
            for sign in self.rng.sample(signs, len(signs)):
                changed = text[:at] + sign + text[at + 1 :]
                word = changed.split(" ")[-1]
                if sign != text[at].lower() and self._mine(word) and not TOO_HIGH.search(word):
                    return changed
        return text

    def _mine(self, text: str) -> bool:
        return (crc32(text.lower().encode()) % HELD_OUT == 0) == self.held_out
