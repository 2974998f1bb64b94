"""Mutations of bytes: small changes, pieces of other inputs, and values that often break parsers.

The same seed gives the same inputs.
"""

from collections.abc import Callable, Sequence
from random import Random

LONGEST = 6000
HURTFUL = (
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\xef\xbb\xbf", b"\n", b" ", b"\r", b"%2e"),
    *(b"../", b"{", b"}", b"[", b'"', b"NaN", b"-Infinity", b"1e999", b"-1", b"9" * 40, b"null"),
    *(
        b"\x81",
        b"\x90",
        b"\xdf\xff\xff\xff\xff",
        b"\xc7\x0c\xff",
        b"\xd9",
        b"\xc1",
        b"<s>",
        b"</s>",
    ),
    *(b"x" * 257, b"\xc3\xa9" * 128, b"[" * 1100, b"\x91" * 1100, b"\n" * 500, b" " * 500),
)

Change = Callable[[Random, bytes, Sequence[bytes]], bytes]


def mutated(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The input with one, two or four changes, mostly one."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = random.choice(CHANGES)(random, data, others)
    return data[:LONGEST]


def _flip(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]


def _drop(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[end:]


def _double(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] + data[end:]


def _hurt(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(HURTFUL) + data[at + random.choice((0, 0, 1, 4)) :]


def _cross(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random.choice(others) if others else b""
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


CHANGES: tuple[Change, ...] = (_flip, _flip, _drop, _double, _hurt, _hurt, _cross)
