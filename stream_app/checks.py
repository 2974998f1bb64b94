"""Checks: of settings that have a form of their own: names of topics, where to start.

Each raises SettingsError, which names the variable. Knows the forms; not what is done with them.
"""

import re
import time
from dataclasses import fields
from typing import Any

from stream_app.errors import SettingsError
from stream_app.offset_reset import parse_start
from stream_app.variables import variable

_TOPIC = re.compile(r"(?!\.\.?$)[a-zA-Z0-9._-]{1,249}")


def check_topics(settings: Any) -> None:
    """Each can be a topic's name, or is a pattern, and none is two of them."""
    kinds = [f.name for f in fields(settings) if f.name.endswith("_topic")]
    named: dict[str, tuple[str, ...]] = {kind: (getattr(settings, kind),) for kind in kinds}
    named["tokens_topic"] = settings.tokens_topics
    for kind, topics in named.items():
        if not all(map(_TOPIC.fullmatch, topics)):
            several = "; or several with commas" if kind == "tokens_topic" else ""
            raise SettingsError(
                f"{variable(kind)} must be 1 to 249 of a-z, A-Z, 0-9, . _ -{several}"
            )
    names = [name for topics in named.values() for name in topics]
    if len({*names}) < len(names):  # its own dead letters
        raise SettingsError(f"{', '.join(map(variable, kinds))} must differ from each other")
    try:
        _ = settings.tokens_pattern
    except re.error as error:
        raise SettingsError(
            f"{variable('tokens_topic')} begins with ^, so it is a pattern, but none that can be "
            f"used ({error})"
        ) from None


def check_start(start: str) -> None:
    """It is one of the ways to say where to start."""
    try:
        parse_start(start, time.time())
    except (ValueError, OverflowError):
        raise SettingsError(
            f"{variable('start')} must be earliest, latest, a time as 2026-05-01T12:00:00Z, or how "
            "long ago as -30m, -1h, -2d"
        ) from None
