"""Templates: text from several fields: `{level} {host.name} {message}`; `{{` and `}}` are braces.

A text without braces is a list of paths with commas, of which the first that exists is used.
"""

import re
from collections.abc import Callable
from typing import Any

from stream_app.errors import SettingsError
from stream_app.formats.paths import Lookup, Scopes, Steps, compile_paths, parse_paths

Render = Callable[[Scopes], str | None]
ToText = Callable[[Any], str | None]

FIELDS = 32
"""In a template, so that a text cannot be many times larger than its event."""
LONGEST = 4096
PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[^{}]+")


def is_template(text: str) -> bool:
    """Whether it has fields in braces."""
    return "{" in text or "}" in text


def compile_text(text: str, setting: str, records: str, to_text: ToText) -> Render:
    """A renderer for a template or for paths; it returns None if no field exists. Raises
    SettingsError."""
    if is_template(text):
        return _template(text, setting, records, to_text)
    return _first(compile_paths(text, setting, records), to_text)


def paths_of(text: str, setting: str, records: str) -> list[Steps]:
    """All paths in a template or in a list of paths."""
    lists = [each for each in PART.findall(text) if each] if is_template(text) else [text]
    return [steps for each in lists for steps in parse_paths(each, setting, records)]


def _first(paths: list[Lookup], to_text: ToText) -> Render:
    """Renders the first path that has a text."""
    if len(paths) == 1:
        (only,) = paths
        return lambda scopes: to_text(only(scopes))

    def render(scopes: Scopes) -> str | None:
        for path in paths:
            if (found := to_text(path(scopes))) is not None:
                return found
        return None

    return render


def _template(text: str, setting: str, records: str, to_text: ToText) -> Render:
    parts = _parts(text, setting, records, to_text)

    def render(scopes: Scopes) -> str | None:
        found = [part if isinstance(part, str) else part(scopes) for part in parts]
        if all(each is None for each, part in zip(found, parts, strict=True) if callable(part)):
            return None
        return "".join(each or "" for each in found)

    return render


def _parts(text: str, setting: str, records: str, to_text: ToText) -> list[str | Render]:
    """The texts between fields, and renderers of fields."""
    parts, end = list[str | Render](), 0
    for match in PART.finditer(text):
        if match.start() != end:
            break
        end = match.end()
        if match[1] is None:
            parts.append(match[0][:1] if match[0] in ("{{", "}}") else match[0])
        else:
            parts.append(_first(compile_paths(match[1], setting, records), to_text))
    if end != len(text):
        raise SettingsError(f"{setting}: unbalanced brace; write {{{{ or }}}} for a brace itself")
    fields = sum(map(callable, parts))
    if not 1 <= fields <= FIELDS or len(text) > LONGEST:
        raise SettingsError(
            f"{setting} must have 1 to {FIELDS} fields in braces, as in {{level}} {{message}}, "
            f"and at most {LONGEST} characters"
        )
    return parts
