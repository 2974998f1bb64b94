"""Paths: places in nested records. They are compiled once and followed for each record.

`log.message`, `items[0].name`, `items.0.name`, `resource.attributes[service.name]`; of several
paths with commas the first that exists is used. A path is looked up in the record first, then in
the objects around it, from inner to outer.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from stream_app.errors import SettingsError

Scopes = Sequence[Any]
"""A record and the objects around it, from inner to outer."""
Steps = Sequence[tuple[str, bool]]
"""Names, and whether each is in brackets."""
Lookup = Callable[[Scopes], Any]
"""Scopes -> the value at the path; None if it is missing or null."""

MISSING: Any = object()
"""The value of a path that does not exist."""

LONGEST = 1024
STEPS = 12
"""Each name can be part of a flattened one, so the alternatives double with each."""
LEVELS = 8
"""Of nested arrays."""
PATHS = 16
ATTRIBUTES = 128
"""Entries searched in a list of keys and values; OpenTelemetry's default limit."""
STEP = re.compile(r"\[([^\[\]]+)\]|\.?([^.\[\]]+)")
ARRAY = re.compile(r"\[\]\.?")


def compile_paths(text: str, setting: str, records: str = "") -> list[Lookup]:
    """A lookup for each of the paths, separated by commas. records: the path of the array of
    records, which a path may begin with. Raises SettingsError."""
    return [_compile(steps) for steps in parse_paths(text, setting, records)]


def parse_paths(text: str, setting: str, records: str = "") -> list[Steps]:
    """The steps of each path. Raises SettingsError."""
    paths = [_within(path.strip(), records) for path in text.split(",")]
    if len(text) > LONGEST or len(paths) > PATHS:
        raise SettingsError(
            f"{setting} must be at most {PATHS} paths, of {LONGEST} characters together"
        )
    for path in paths:
        if "[]" in path:
            raise SettingsError(f"{setting}: {path!r} has arrays that are not those of the records")
    return [parse(path, setting) for path in paths]


def split_records(text: str) -> tuple[str, str]:
    """Splits a path with arrays: the path of the records, and the path within a record."""
    array, last, rest = text.rpartition("[]")
    return (array + last, rest.removeprefix(".")) if last else ("", text)


def compile_records(text: str, setting: str) -> list[str]:
    """The paths of nested arrays, outermost first; the last holds the records."""
    names = [name for name in ARRAY.split(text) if name]
    if not names and not ARRAY.fullmatch(text):
        raise SettingsError(f"{setting}={text!r} is not a path of an array such as records[]")
    if len(names) > LEVELS:
        raise SettingsError(f"{setting} must be at most {LEVELS} arrays within each other")
    for name in names:
        parse(name, setting)
    return names


def parse(path: str, setting: str) -> Steps:
    """The steps of a path. Raises SettingsError."""
    steps, end = list[tuple[str, bool]](), 0
    for match in STEP.finditer(path):
        if match.start() != end:
            break
        end = match.end()
        steps.append((match[1] or match[2], match[1] is not None))
    if end != len(path) or not steps or path.startswith("."):
        raise SettingsError(f"{setting}: {path!r} is not a path such as kubernetes.pod_name")
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
    """The common case: one name without a dot."""

    def lookup(scopes: Scopes) -> Any:
        for scope in scopes:
            if isinstance(scope, dict) and name in scope:
                return scope[name]
        return None

    return lookup


def follow(value: Any, steps: Steps) -> Any:
    """The value at the end of the steps, or MISSING. In a map the longest flattened name is tried
    first: `a.b`, `c` before `a`, `b`, `c`. A null is used only if no other exists."""
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
    """The number of steps before one in brackets, at least one."""
    return next((at for at, (_, bracketed) in enumerate(steps) if bracketed and at), len(steps))


def _item(items: list[Any], name: str, bracketed: bool) -> Any:
    """The item at an index; in brackets also by key, in a list of `{"key": ..., "value": ...}`."""
    if name.isdecimal() and len(name) < 10:
        return items[int(name)] if int(name) < len(items) else MISSING
    for item in items[:ATTRIBUTES] if bracketed else ():
        if isinstance(item, dict) and item.get("key") == name:
            return item.get("value", MISSING)
    return MISSING
