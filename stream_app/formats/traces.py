"""Traces: the text of an exception from its map in the JSON layouts of log4j2."""

from collections.abc import Iterator
from typing import Any

from stream_app.formats.values import as_text

CAUSES = 20
FRAMES = 1024


def trace_text(value: Any) -> str | None:
    """The exception as Java prints it; a text stays as it is."""
    if not isinstance(value, dict):
        return as_text(value)
    return "\n".join(_lines(value)) or None


def _lines(thrown: dict[str, Any]) -> Iterator[str]:
    """The lines of the exception and of its causes."""
    lead = ""
    for _ in range(CAUSES):
        yield from _own_lines(thrown, lead)
        thrown, lead = thrown.get("cause") or {}, "Caused by: "
        if not isinstance(thrown, dict) or not thrown:
            return


def _own_lines(thrown: dict[str, Any], lead: str) -> Iterator[str]:
    """The lines of one exception. A trace that is a text includes its causes."""
    trace = thrown.get("extendedStackTrace") or thrown.get("stackTrace")
    if isinstance(trace, str):
        if not lead:
            yield trace
        return
    named = [as_text(thrown.get(name)) for name in ("name", "message")]
    yield lead + ": ".join(filter(None, named))
    for frame in trace[:FRAMES] if isinstance(trace, list) else []:
        yield f"\tat {_frame(frame)}" if isinstance(frame, dict) else f"\t{as_text(frame)}"
    if common := thrown.get("commonElementCount"):
        yield f"\t... {as_text(common)} more"


def _frame(frame: dict[str, Any]) -> str:
    place, line = as_text(frame.get("file")) or "Unknown Source", as_text(frame.get("line"))
    where = f"{as_text(frame.get('class')) or '?'}.{as_text(frame.get('method')) or '?'}"
    return f"{where}({place}:{line})" if line else f"{where}({place})"
