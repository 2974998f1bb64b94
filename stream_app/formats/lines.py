"""Lines: the timestamp in a line of a log, and the line format of container runtimes (CRI)."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

from stream_app.errors import SettingsError
from stream_app.formats.times import CLOCK, DAY, MONTH, WEEKDAY, YEAR, ZONE, nearest, parse_time

LineRule = Callable[[str, int], int | None]
"""(line, time now) -> the line's own time, or None. Milliseconds since the epoch."""

AUTO = "auto"
BEGINS = 64
"""A time begins within this many characters of a line."""
LOOKED_AT = 512
"""Characters of a line that a user's pattern is applied to."""
LONGEST = 1024

_ZONE = ZONE.replace("?P<zone>", "?:") + r"(?![\w:])"
SHAPES = (
    rf"(?<!\d){YEAR}-\d\d-\d\d[T _]{CLOCK}(?: ?{_ZONE})?",
    rf"(?<!\d){YEAR}/\d\d/\d\d[ _]{CLOCK}(?: ?{_ZONE})?",
    rf"(?<!\d){DAY}[-/ ]{MONTH}[-/ ]{YEAR}[: ]{CLOCK}(?: ?{_ZONE})?",
    rf"\b{WEEKDAY}{MONTH} +{DAY} {CLOCK}(?: \d{{4}}\b)?",
    rf"^[IWEFD]\d{{4}} {CLOCK}",
    r"^\[?\d{10}(?:\.\d{1,9}|\d{3}|\d{6}|\d{9})?(?![\w.:-])",
)

# The directives of strptime that a pattern may have, as regular expressions.
SHORT = {"%T": "%H:%M:%S", "%F": "%Y-%m-%d", "%D": "%m/%d/%y", "%R": "%H:%M", "%e": "%d"}
DIRECTIVES = {
    "%Y": r"\d{4}", "%y": r"\d\d", "%m": r"\d\d?", "%d": r" ?\d\d?", "%H": r"\d\d?",
    "%I": r"\d\d?", "%M": r"\d\d", "%S": r"\d\d", "%f": r"\d{1,6}", "%j": r"\d{1,3}",
    "%b": r"[A-Za-z]{3}", "%B": r"[A-Za-z]{3,9}", "%a": r"[A-Za-z]{3}", "%A": r"[A-Za-z]{6,9}",
    "%p": r"[AaPp][Mm]", "%z": r"(?:Z|[+-]\d\d:?\d\d)", "%Z": r"[A-Z]{3,4}", "%%": "%",
}  # fmt: skip

CRI_LINE = re.compile(r"(\S{19,40}) std(?:out|err) ([FP])(?::\S*)? ?")


class Piece(NamedTuple):
    """A part of an event's text; it ends with a line break if its last line is complete."""

    text: str
    time_ms: int | None


def line_rule(setting: str) -> LineRule | None:
    """The rule of `XL3M_TIME_FROM_LINE`: `auto`, a pattern of strptime (with %), a regular
    expression with a group; None if it is empty. Raises SettingsError."""
    if not setting:
        return None
    if setting == AUTO:
        return _auto
    if len(setting) > LONGEST:
        raise SettingsError(f"XL3M_TIME_FROM_LINE must be at most {LONGEST} characters")
    return _strptime(setting) if "%" in setting else _regex(setting)


def line_time(line: str, rule: LineRule, now_ms: int) -> int | None:
    """The time in the line, in milliseconds since the epoch; None if there is none."""
    return rule(line, now_ms)


def timed(text: str, rule: LineRule, now_ms: int) -> Iterator[Piece]:
    """The lines of the text, grouped by time; a line without a time has that of the line before."""
    held, held_ms = list[str](), None
    for line in _lines(text):
        time_ms = rule(line, now_ms) or held_ms
        if held and time_ms != held_ms:
            yield Piece("".join(held), held_ms)
            held.clear()
        held.append(line)
        held_ms = time_ms
    if held:
        yield Piece("".join(held), held_ms)


def is_cri(text: str) -> bool:
    """Whether it begins like a line of /var/log/pods: `TIME stdout F text`."""
    return CRI_LINE.match(text) is not None


def cri_pieces(text: str, now_ms: int) -> Iterator[Piece]:
    """The lines of a container runtime without their prefixes. A line marked P continues in the
    next one. Other lines stay as they are."""
    for line in _lines(text):
        line = line.removesuffix("\n").removesuffix("\r")
        match = CRI_LINE.match(line)
        if match is None:
            yield Piece(line + "\n", None)
        else:
            end = "" if match[2] == "P" else "\n"
            yield Piece(line[match.end() :] + end, parse_time(match[1], now_ms))


def _lines(text: str) -> Iterator[str]:
    """The lines with their line breaks. `splitlines` would split at other characters, too."""
    start = 0
    while (end := text.find("\n", start) + 1) > 0:
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


@cache
def _common() -> re.Pattern[str]:
    """All shapes as one regular expression, without group names."""
    shapes = "|".join(f"(?:{shape})" for shape in SHAPES)
    return re.compile(re.sub(r"\?P<\w+>", "?:", shapes), re.IGNORECASE | re.ASCII)


def _auto(line: str, now_ms: int) -> int | None:
    match = _common().search(line[: 2 * BEGINS])
    if match is None or match.start() > BEGINS:
        return None
    return parse_time(match[0].removeprefix("["), now_ms)


def _regex(setting: str) -> LineRule:
    try:
        pattern = re.compile(setting)
    except (re.error, RecursionError, OverflowError) as error:
        raise SettingsError(
            f"XL3M_TIME_FROM_LINE is not a valid regular expression: {error}"
        ) from None
    if not pattern.groups:
        raise SettingsError("XL3M_TIME_FROM_LINE must have a group around the time: ^(\\S+ \\S+)")

    def rule(line: str, now_ms: int) -> int | None:
        match = pattern.search(line[:LOOKED_AT])
        return parse_time(match[1], now_ms) if match else None

    return rule


def _strptime(setting: str) -> LineRule:
    """A rule from a pattern of strptime. strptime reads whole texts only, so a regular expression
    finds the part to read."""
    for short, long in SHORT.items():
        setting = setting.replace(short, long)
    parts = re.split(r"(%.?)", setting)
    unknown = [part for part in parts[1::2] if part not in DIRECTIVES]
    if unknown:
        raise SettingsError(
            f"XL3M_TIME_FROM_LINE has {unknown[0]!r}, which strptime does not support here"
        )
    expression = "".join(DIRECTIVES.get(part, re.escape(part)) for part in parts)
    pattern, has_year = re.compile(expression), bool({"%Y", "%y"} & set(parts))
    if not {"%d", "%j"} & set(parts):
        raise SettingsError("XL3M_TIME_FROM_LINE must include a day: %d or %j")

    def rule(line: str, now_ms: int) -> int | None:
        match = pattern.search(line[:LOOKED_AT])
        if match is None:
            return None
        try:
            read = (
                _read(f"2000 {match[0]}", f"%Y {setting}")
                if not has_year
                else _read(match[0], setting)
            )
        except ValueError:
            return None
        if has_year:
            return parse_time(read, now_ms)
        return nearest(lambda year: read.replace(year=year), now_ms)

    return rule


def _read(text: str, pattern: str) -> datetime:
    read = datetime.strptime(text, pattern)
    return read if read.tzinfo else read.replace(tzinfo=UTC)
