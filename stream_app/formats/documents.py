"""Documents: the JSON documents in the value of an event: usually one, or several in a row."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from stream_app.errors import BadEvent
from stream_app.formats.text import json_fault

BLANKS = " \t\r\n\ufeff"
WRONG_LINES = 1000
"""In one value; the rest of it is ignored."""


class Bad(NamedTuple):
    """Stands for a document or record that cannot be used."""

    reason: str


def documents(text: str) -> list[Any]:
    """The documents in order, with Bad for invalid ones. Raises BadEvent if all are invalid."""
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError) as error:
        found = _several(text)
        if all(isinstance(each, Bad) for each in found):
            raise BadEvent(f"the value is not json: {json_fault(error)}") from None
        return found


def _several(text: str) -> list[Any]:
    """Documents in a row: parsed one by one, and line by line from the first invalid one."""
    found, end, decoder = list[Any](), 0, json.JSONDecoder()
    while (start := _skip_blanks(text, end)) < len(text):
        try:
            document, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            return [*found, *_by_lines(text[start:])]
        found.append(document)
    return found


def _by_lines(rest: str) -> Iterator[Any]:
    """Each line by itself, from the first invalid document on."""
    wrong = 0
    for line in filter(None, (line.strip(BLANKS) for line in rest.split("\n"))):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Bad(f"it is not json: {json_fault(error)}")
            wrong += 1
            if wrong == WRONG_LINES:
                return


def _skip_blanks(text: str, start: int) -> int:
    while start < len(text) and text[start] in BLANKS:
        start += 1
    return start
