"""Record rules: whether a line begins a record, or continues the one before it.

A stack trace is one record with the log line before it. A rule looks at the first characters of
one line only, so that its cost is linear in the text.
"""

import re
from collections.abc import Callable
from functools import lru_cache

RecordStart = Callable[[str], bool]
"""Whether a line begins a record: called with the line and its line break, or with as much of it as
there is, at least one character."""

AUTO, LINE = "auto", "line"
"""The two rules that are not a pattern."""

# A pattern sees no more of a line: the cost of some patterns grows faster than its length.
EXAMINED_CHARS = 256

# First characters of most log lines, and of no line that continues a record.
_TIMES = frozenset("0123456789<")
# The start of a line that continues a record, in stack traces of Java, .NET, Python, JavaScript,
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
    """The rule with this name, `auto` or `line`; or that of a regular expression, which is found in
    the first line of each record. Raises ValueError, with the reason, if it is neither."""
    if rule == AUTO:
        return _is_no_continuation
    if rule == LINE:
        return _always
    try:
        pattern = re.compile(rule)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{rule!r} is not a regular expression: {error}") from error
    if pattern.search(""):
        raise ValueError(f"{rule!r} matches every line, even an empty one: use `{LINE}`")
    return lambda line: pattern.search(line[:EXAMINED_CHARS]) is not None


def _is_no_continuation(line: str) -> bool:
    return line[0] in _TIMES or _CONTINUED.match(line[:EXAMINED_CHARS]) is None


def _always(line: str) -> bool:
    return True
