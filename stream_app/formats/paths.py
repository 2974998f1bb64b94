"""Paths: where in a nested record something lies, compiled once, followed for each record.

`log.message`, `items[0].name`, `items.0.name`, `resource.attributes[service.name]`; a list of paths
parted by commas means the first that leads to something. A record is looked through first, then
what it lies in, outward. Knows plain data; no formats and no events.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from stream_app.errors import SettingsError

Scopes = Sequence[Any]
"""A record, what it lies in, what that lies in, and so on."""
Steps = Sequence[tuple[str, bool]]
"""Names, and whether each stands in brackets."""
Lookup = Callable[[Scopes], Any]
"""What the path leads to; None if it leads to nothing, or to null."""

MISSING: Any = object()
"""What a path leads to that leads to nothing."""

LONGEST = 1024
STEPS = 12
"""Each name may be part of a flattened one, so the ways to go double with each."""
LEVELS = 8
"""Of arrays within arrays."""
PATHS = 16
ATTRIBUTES = 128
"""Of a list of keys and values so many are looked at; OpenTelemetry allows no more by default."""
STEP = re.compile(r"\[([^\[\]]+)\]|\.?([^.\[\]]+)")
ARRAY = re.compile(r"\[\]\.?")


def compile_paths(text: str, setting: str, records: str = "") -> list[Lookup]:
    """Each of the paths parted by commas. records: the path of the array of records, which a path
    may begin with."""
    return [_compile(steps) for steps in parse_paths(text, setting, records)]


def parse_paths(text: str, setting: str, records: str = "") -> list[Steps]:
    """The steps of each of the paths."""
    paths = [_within(path.strip(), records) for path in text.split(",")]
    if len(text) > LONGEST or len(paths) > PATHS:
        raise SettingsError(
            f"{setting} must be at most {PATHS} paths, of {LONGEST} characters together"
        )
    for path in paths:
        if "[]" in path:
            raise SettingsError(f"{setting}: {path!r} has arrays other than those of the records")
    return [parse(path, setting) for path in paths]


def split_records(text: str) -> tuple[str, str]:
    """A path with arrays in it as the path of the records and the path within one."""
    array, last, rest = text.rpartition("[]")
    return (array + last, rest.removeprefix(".")) if last else ("", text)


def compile_records(text: str, setting: str) -> list[str]:
    """The paths of the arrays, from the outermost on; the last holds the records."""
    names = [name for name in ARRAY.split(text) if name]
    if not names and not ARRAY.fullmatch(text):
        raise SettingsError(f"{setting}={text!r} is no path of an array, as in records[]")
    if len(names) > LEVELS:
        raise SettingsError(f"{setting} must be at most {LEVELS} arrays within each other")
    for name in names:
        parse(name, setting)
    return names


def parse(path: str, setting: str) -> Steps:
    """The steps of a path."""
    steps, end = list[tuple[str, bool]](), 0
    for match in STEP.finditer(path):
        if match.start() != end:
            break
        end = match.end()
        steps.append((match[1] or match[2], match[1] is not None))
    if end != len(path) or not steps or path.startswith("."):
        raise SettingsError(f"{setting}: {path!r} is no path, as in kubernetes.pod_name")
    if len(steps) > STEPS:
        raise SettingsError(f"{setting}: {path!r} has more than {STEPS} steps")
    return steps


def _within(path: str, records: str) -> str:
    return path[len(records) :].removeprefix(".") if records and path.startswith(records) else path


def _compile(steps: Steps) -> Lookup:
    if len(steps) == 1 and not steps[0][1]:
        return _key(steps[0][0])

    def lookup(scopes: Scopes) -> Any:
        for scope in scopes:
            if (found := follow(scope, steps)) is not MISSING:
                return found
        return None

    return lookup


def _key(name: str) -> Lookup:
    """The usual case: a name without a dot."""

    def lookup(scopes: Scopes) -> Any:
        for scope in scopes:
            if isinstance(scope, dict) and name in scope:
                return scope[name]
        return None

    return lookup


def follow(value: Any, steps: Steps) -> Any:
    """What the steps lead to from there, or MISSING. In a map the longest flattened name goes
    first: `a.b` and then `c` before `a`, then `b`, then `c`; but null only if there is no other."""
    if not steps:
        return value
    name, bracketed = steps[0]
    if isinstance(value, list):
        return follow(_item(value, name, bracketed), steps[1:])
    if not isinstance(value, dict):
        return MISSING
    best: Any = MISSING
    for taken in range(_names(steps), 0, -1):
        flattened = ".".join(each for each, _ in steps[:taken])
        if flattened in value and (found := follow(value[flattened], steps[taken:])) is not MISSING:
            if found is not None:
                return found
            best = None
    return best


def _names(steps: Steps) -> int:
    """How many steps there are before one in brackets, at least one."""
    return next((at for at, (_, bracketed) in enumerate(steps) if bracketed and at), len(steps))


def _item(items: list[Any], name: str, bracketed: bool) -> Any:
    """By its place; in brackets also by its key, in a list of `{"key": …, "value": …}`."""
    if name.isdecimal() and len(name) < 10:
        return items[int(name)] if int(name) < len(items) else MISSING
    for item in items[:ATTRIBUTES] if bracketed else ():
        if isinstance(item, dict) and item.get("key") == name:
            return item.get("value", MISSING)
    return MISSING
