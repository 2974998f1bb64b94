"""The log of this machine, and questions about it whose answers can be read off its lines.

A fact is taken from what the lines state once, so that there is one right answer; it is worked out
by rules for the log's form, without a model.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from stream_app.sample_log import Fact

LOGS = (
    "/var/log/dpkg.log", "/var/log/syslog", "/var/log/messages", "/var/log/kern.log",
    "/var/log/pacman.log", "/var/log/dnf.log", "/var/log/install.log", "/var/log/system.log",
    "/var/log/alternatives.log",
)  # fmt: skip
FACTS = 3
MAX_LINE = 400
"""Longer lines are cut: one of them would fill a segment."""
QUOTED_WORDS = range(3, 9)

_INSTALLED = re.compile(r"\S+ (\d\d:\d\d:\d\d) status installed ([^\s:]+)(?::\S+)? (\S+)")
_TIME = re.compile(r"\b(\d\d:\d\d:\d\d)(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\W*\s(.*)")


def machine_log(lines: int, paths: Sequence[str] = LOGS) -> tuple[str, list[str], list[Fact]]:
    """The first readable log with enough facts in its last lines; these lines, and three facts.

    Raises LookupError if there is none.
    """
    for path in paths:
        last = last_lines(path, lines)
        if len(chosen := choose(facts(last))) == FACTS:
            return path, last, chosen
    raise LookupError("no readable log of this machine states what can be asked for")


def last_lines(path: str, lines: int) -> list[str]:
    """The last lines of a file that are not blank; none if it cannot be read."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return []
    return [line[:MAX_LINE] for line in text.splitlines() if line.strip()][-lines:]


def facts(lines: Sequence[str]) -> list[list[Fact]]:
    """Facts by kind: of packages if the log is dpkg's, else the times of what it says."""
    kinds = _package_facts(lines)
    return kinds if any(kinds) else [_time_facts(lines)]


def choose(kinds: Sequence[Sequence[Fact]]) -> list[Fact]:
    """Three facts of different kinds and from different parts of the log, as far as there are."""
    kinds, chosen = [kind for kind in kinds if kind], list[Fact]()
    for part in range(FACTS if kinds else 0):
        kind = kinds[part % len(kinds)]
        left = [fact for fact in kind if fact not in chosen]
        chosen += left[len(left) * (part + 1) // (FACTS + 1) :][:1]
    return chosen


def is_right(answer: str, value: str) -> bool:
    """Whether the answer states the value, and not as a part of a longer one."""
    return bool(
        re.search(rf"(?<![\w.+~-])(?<!\d:){re.escape(value)}(?![\w+~-]|[.:]\d)", answer, re.I)
    )


def _package_facts(lines: Sequence[str]) -> list[list[Fact]]:
    """What was installed and when, of packages that were installed once."""
    found = defaultdict[str, list[tuple[int, str, str]]](list)
    for index, line in enumerate(lines):
        if match := _INSTALLED.fullmatch(line.rstrip()):
            time, package, version = match.groups()
            found[package].append((index, time, version))
    times = Counter(time for entries in found.values() for _, time, _ in entries)
    once = {package: entries[0] for package, entries in found.items() if len(entries) == 1}
    once = {name: entry for name, entry in once.items() if _versions(lines, name) == {entry[2]}}
    return [
        [Fact(f"Which version of {name} was installed?", version, at)
         for name, (at, _, version) in once.items()],
        [Fact(f"At what time did {name} get the status installed?", time, at)
         for name, (at, time, _) in once.items()],
        [Fact(f"Which package got the status installed at {time}?", name, at)
         for name, (at, time, _) in once.items() if times[time] == 1],
    ]  # fmt: skip


def _versions(lines: Sequence[str], package: str) -> set[str]:
    """Every version that the lines give a package."""
    ours = [words for line in lines if package in line for words in [line.split()]]
    return {
        word
        for words in ours
        if len(words) > 4 and any(name.split(":")[0] == package for name in words[3:5])
        for word in words[4:]
        if word[0].isdigit()
    }


def _time_facts(lines: Sequence[str]) -> list[Fact]:
    """The times of messages; each is named by its first words that no other line has."""
    text, found = "\n".join(lines), list[Fact]()
    for index, line in enumerate(lines):
        if match := _TIME.search(line):
            time, message = match.groups()
            if quote := _unique_start(message.split(), text):
                found.append(Fact(f'At what time does the log say "{quote}"?', time, index))
    return found


def _unique_start(words: Sequence[str], text: str) -> str:
    """The fewest first words that occur once in the text; empty if there are none."""
    starts = (" ".join(words[:count]) for count in QUOTED_WORDS if count <= len(words))
    return next((start for start in starts if text.count(start) == 1), "")
