"""Where a record begins: a line, or a line with those behind it that belong to it.

A stack trace is one record with the log line before it. A rule looks at one line alone, at its
first characters, so that no text costs more than its length. Knows lines; no tokens, no segments.
"""

import re
from collections.abc import Callable
from functools import lru_cache

RecordStart = Callable[[str], bool]
"""Whether a line begins a record; given the line with its line break, or as much of it as
there is, a character at least."""

AUTO, LINE = "auto", "line"
"""The two rules that are no pattern."""

# A pattern sees no more of a line: what it may cost grows faster than the line, for some.
EXAMINED_CHARS = 256

# Most lines of logs begin so, and none that goes on with another.
_TIMES = frozenset("0123456789<")
# What a line that goes on with a record begins with, in traces of Java, .NET, Python, JavaScript,
# Go, Ruby, PHP, Rust and C, and in pretty-printed JSON.
_CONTINUED = re.compile(
    r"""
    \s                                                  # indented, or empty
    | \.\.\. | at\ | Caused\ by | Suppressed: | Wrapped\ by:
    | ---\ End\ of\ | --->\ | -+>\ .*Exception
    | Traceback\ \(most\ recent\ call\ last\)
    | During\ handling\ of\ the\ above | The\ above\ exception\ was
    | [\w.$]++ (?= : | \s*$ ) (?: (?<=Exception)         # the line that names what was raised
        | (?<=[\w.$]Error) | (?<=[\w.$]Throwable) | (?<=[\w.$]Warning) | (?<=[\w.$]Interrupt)
        | (?<=[\w.$]Exit) | (?<=[\w.$]Expired) | (?<=[\w.$]Failure) | (?<=[\w.$]Fault) )
    | goroutine\ \d+\ \[ | created\ by\ | \[signal\ SIG
    | [\w./%-]++ (?: \(\*?[\w.\[\]]++\)[\w.]*+ )? \((?: \)\s*$ | \.\.\.\) | \{?0x )  # Go's
    | stack\ backtrace: | note:\ run\ with\ `RUST_ | Stack\ trace: | PHP\ Stack\ trace:
    | \#\d+\s                                           # a frame of PHP's or a debugger's
    | [\])}]+[,;]?\s*$                                  # closes what an earlier line opened
    """,
    re.VERBOSE,
)


@lru_cache(maxsize=16)
def record_start(rule: str) -> RecordStart:
    """The rule by its name, `auto` or `line`, or by a pattern that is found in the lines that
    begin a record. Raises ValueError, with the reason, for what is neither."""
    if rule == AUTO:
        return _is_no_continuation
    if rule == LINE:
        return _always
    try:
        pattern = re.compile(rule)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{rule!r} is no regular expression: {error}") from error
    if pattern.search(""):
        raise ValueError(f"{rule!r} is found in every line, also an empty one: say `{LINE}`")
    return lambda line: pattern.search(line[:EXAMINED_CHARS]) is not None


def _is_no_continuation(line: str) -> bool:
    return line[0] in _TIMES or _CONTINUED.match(line[:EXAMINED_CHARS]) is None


def _always(line: str) -> bool:
    return True
