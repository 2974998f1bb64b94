"""What both query endpoints share: the form of a reply, and how many queries run at once."""

from typing import Any

from stream_app.events import encode
from stream_app.requests import Query

MAX_CONCURRENT_QUERIES = 16
"""Queries that one endpoint answers at once."""


def encode_reply(query: Query, fields: dict[str, Any]) -> bytes:
    """A reply to the query, in the format (JSON or msgpack) of the query."""
    return encode({"id": query.id, "stream": query.stream} | fields, query.as_json)


def without_texts(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer marked as `truncated`: its evidence has offsets and scores, and no text."""
    evidence = [each | {"text": ""} for each in answer["evidence"]]
    return answer | {"evidence": evidence, "truncated": True}
