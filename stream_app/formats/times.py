"""Times: parses any common form of a time to milliseconds since the epoch, or None.

Numbers and plain ISO 8601 are parsed directly. Other forms are recognised by their shape, and only
full dates are passed to dateutil. An ambiguous time is None. A time without a zone is UTC; one
without a year is in the year nearest to now.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from stream_app.formats.values import is_number

LONGEST = 64
"""Characters of the longest form of a time."""
LATEST = 10**14
"""Milliseconds, in the year 5138: numbers from here on count micro- and nanoseconds."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SPAN_MS = {"$date": 1, "seconds": 1000, "epochSecond": 1000}
FRACTIONS = ("nanos", "nanoOfSecond")

NAMES = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
MONTHS = {name: number for number, name in enumerate(NAMES.split("|"), 1)}
MONTH = rf"(?P<month>{NAMES})[a-z]*"
CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,12}))?)?"
ZONE = r"(?P<zone>z|utc|gmt|[+-]\d\d(?::?\d\d)?)"
DAY = r"(?P<day>\d{1,2})"
YEAR = r"(?P<year>\d{4})"
WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+)?"
DIGITS = re.compile(r"[0-9]{8,20}(?:\.[0-9]{1,12})?")
SHAPES = (
    # 2026-11-30 10:00:00,123 +0200; 2026/11/30 10:00; 2026-11-30T10:00:00Z[UTC]; Go's "… UTC"
    rf"{YEAR}([-/.])(?P<month>\d\d)\2{DAY}"
    rf"(?:(?:t|\s+|_){CLOCK}(?:\s*{ZONE}(?:\[[^\]]*\]|\s+[a-z]+)?)?)?",
    # 20261130100000, 20261130, 20261130T100000Z
    rf"(?P<year>(?:19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)"
    rf"(?:t?(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d){ZONE}?)?",
    # 30/Nov/2026:10:00:00 +0000; 30-Nov-2026 10:00:00.123
    rf"{DAY}([-/ ]){MONTH}\2{YEAR}[: ]\s*{CLOCK}\s*{ZONE}?",
    # Mon, 30 Nov 2026 10:00:00 GMT
    rf"{WEEKDAY}{DAY}\s+{MONTH}\s+(?P<year>\d{{4}}|\d\d)\s+{CLOCK}\s*{ZONE}?(?:\s*\([a-z]*\))?",
    # Nov 30 10:00:00; Nov 30 2026 10:00:00; Mon Nov 30 10:00:00 2026, also with UTC before 2026
    rf"{WEEKDAY}{MONTH}\s+{DAY}(?:,?\s+{YEAR})?,?\s+{CLOCK}\s*{ZONE}?(?:\s+(?P<year2>\d{{4}}))?",
    # klog's E1130 10:00:01.223456
    rf"[iwefd](?P<month>\d\d)(?P<day>\d\d)\s+{CLOCK}",
)
# Texts passed to dateutil, which would parse almost anything as a time today.
WHOLE = re.compile(r"(?=.*\b(?:19|20)\d\d\b)(?=.*\d:\d\d).*(?:[a-z]{3}|\d{1,2}[-/.]\d{1,2})", re.I)
OFFSETS = {"utc": 0, "gmt": 0, "z": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7}
OFFSETS |= {"mdt": -6, "pst": -8, "pdt": -7, "cet": 1, "cest": 2}


def parse_time(value: Any, now_ms: int) -> int | None:
    """Milliseconds since the epoch if the value is an unambiguous time after 1970, else None."""
    if type(value) is int and 10**11 <= value < LATEST:  # milliseconds, the usual case
        return value
    if isinstance(value, str):
        return _of_text(value, now_ms)
    if is_number(value):
        return _of_number(value)
    if isinstance(value, Mapping):
        return _of_map(value, now_ms)
    if isinstance(value, datetime):
        return _of_datetime(value)
    if isinstance(value, date):
        return _of_datetime(datetime(value.year, value.month, value.day))
    to_nanoseconds = getattr(value, "to_unix_nano", None)  # msgpack's own type
    return _of_number(to_nanoseconds() // 10**6, 1) if to_nanoseconds else None


def _of_number(value: float, span_ms: int | None = None) -> int | None:
    """Seconds, milli-, micro- or nanoseconds: by `span_ms`, else by size. 0 means unset."""
    if not 0 < value < LATEST * 10**6:
        return None
    if span_ms is None:
        span_ms = 1000 if value < 10**11 else 1
    if value >= LATEST and span_ms == 1:
        value = value // (1000 if value < LATEST * 1000 else 10**6)
    whole = value * span_ms
    time_ms = whole if isinstance(whole, int) else int(whole + 0.001)  # 0.123 is just below 123 ms
    return time_ms if 0 < time_ms < LATEST else None


def _of_map(fields: Mapping[str, Any], now_ms: int) -> int | None:
    """`{"$date": …}`, protobuf's `{seconds, nanos}`, log4j2's `{epochSecond, nanoOfSecond}`."""
    for name, span_ms in SPAN_MS.items():
        if name in fields:
            held = fields[name]
            if isinstance(held, Mapping):
                held = held.get("$numberLong")
            if isinstance(held, str) and not held.isdecimal():
                return _of_text(held, now_ms) if name == "$date" else None
            return _with_fraction(held, span_ms, fields)
    return None


def _with_fraction(held: Any, span_ms: int, fields: Mapping[str, Any]) -> int | None:
    if isinstance(held, str):
        held = int(held) if len(held) <= 20 else None
    if not is_number(held) or not 0 < held < LATEST:
        return None
    fraction = next((fields[name] for name in FRACTIONS if name in fields), 0)
    is_whole = is_number(fraction) and 0 <= fraction < 10**9
    return _of_number(int(held * span_ms) + (int(fraction // 10**6) if is_whole else 0), 1)


def _of_text(text: str, now_ms: int) -> int | None:
    if len(text) > LONGEST:
        return None
    if text[4:5] == "-":
        try:
            return _of_datetime(datetime.fromisoformat(text))
        except ValueError:
            pass  # an unusual form
    return _odd(text, now_ms)


def _odd(text: str, now_ms: int) -> int | None:
    """Forms other than plain ISO 8601."""
    text = text.strip()
    if text[:1] == "[" and text[-1:] == "]":  # as in an access log
        text = text[1:-1].strip()
    if DIGITS.fullmatch(text):
        dated = _of_shape(text, now_ms) if len(text) in (8, 14) else None
        return dated or _of_number(float(text) if "." in text else int(text))
    if not text[:1].isalnum():
        return None
    return _of_shape(text, now_ms) or _of_dateutil(text)


def _of_shape(text: str, now_ms: int) -> int | None:
    for shape in _shapes():
        if match := shape.fullmatch(text):
            return time_of(match.groupdict(), now_ms)
    return None


@cache
def _shapes() -> list[re.Pattern[str]]:
    """The shapes as regular expressions, compiled on first use: most commands need none."""
    return [re.compile(shape, re.IGNORECASE | re.ASCII) for shape in SHAPES]


def time_of(parts: Mapping[str, str | None], now_ms: int) -> int | None:
    """The time from the named groups of a match; the year may be missing."""
    try:
        year = parts.get("year") or parts.get("year2")
        if year:
            return _of_datetime(_datetime(parts, int(year) + 2000 * (len(year) == 2)))
        return nearest(lambda year: _datetime(parts, year), now_ms)
    except (ValueError, OverflowError):
        return None


def nearest(of_year: Any, now_ms: int) -> int | None:
    """The time in the year nearest to now."""
    this = (EPOCH + timedelta(milliseconds=max(0, min(now_ms, LATEST)))).year
    times = list[int]()
    for year in (this - 1, this, this + 1):
        try:
            found = _of_datetime(of_year(year))
        except (ValueError, OverflowError):  # the 29th of February
            continue
        times += [found] if found is not None else []
    return min(times, key=lambda time_ms: abs(time_ms - now_ms), default=None)


def _datetime(parts: Mapping[str, str | None], year: int) -> datetime:
    """The time from its parts; a leap second is the first second of the next minute. Raises
    ValueError."""
    month = (parts["month"] or "").lower()
    second, fraction = int(parts.get("second") or 0), (parts.get("fraction") or "0")[:6]
    made = datetime(
        year,
        MONTHS[month[:3]] if month[:3] in MONTHS else int(month),
        int(parts["day"] or 0),
        int(parts.get("hour") or 0),
        int(parts.get("minute") or 0),
        min(second, 59) if second <= 60 else second,
        int(fraction.ljust(6, "0")),
        UTC,
    )
    return made - _offset(parts.get("zone") or "") + timedelta(seconds=second == 60)


def _offset(zone: str) -> timedelta:
    """The offset of +02:00, +0200 or +02; zero without one. Raises ValueError."""
    if zone[:1] not in ("+", "-"):
        return timedelta()
    digits = zone[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    if minutes > 18 * 60:
        raise ValueError(f"{zone} is not a time zone")
    return timedelta(minutes=-minutes if zone[0] == "-" else minutes)


def _of_datetime(time: datetime) -> int | None:
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH
    time_ms = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    return time_ms if 0 < time_ms < LATEST else None


@lru_cache(maxsize=4096)
def _of_dateutil(text: str) -> int | None:
    """The time as dateutil parses it, or None if it depends on a guess: on the order of day and
    month, or on the current date."""
    if not WHOLE.match(text):
        return None
    from dateutil import parser

    month_first, day_first = datetime(2001, 1, 1), datetime(2002, 2, 2, 2, 2, 2)
    try:
        found = {
            _of_datetime(parser.parse(text, default=month_first, tzinfos=_zone)),
            _of_datetime(parser.parse(text, default=day_first, tzinfos=_zone, dayfirst=True)),
        }
    except (ValueError, OverflowError, TypeError, AttributeError, IndexError, RecursionError):
        return None
    return found.pop() if len(found) == 1 else None


def _zone(name: str | None, offset: int | None) -> Any:
    """Called by dateutil for a zone. Raises ValueError for an unknown or ambiguous name."""
    from dateutil import tz

    if not name:
        return tz.tzoffset(None, offset or 0)
    if name.lower() not in OFFSETS:
        raise ValueError(f"{name} is not a known time zone")
    return tz.tzoffset(name, offset if offset is not None else OFFSETS[name.lower()] * 3600)
