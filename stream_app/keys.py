"""Every name this project uses in Redis, one function each.

The prefix carries the schema's version. The braces put all of a stream in one slot of a
Redis Cluster. Knows names only.
"""

from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote

SCHEMA = 1
SCORES_PER_BLOCK = 65_536
SCORE_BYTES = 4

QUERY_CHANNEL = "xl3m:query"
QUESTION_CHANNEL = "xl3m:question"


def prefix(schema: int) -> str:
    """What all names of a schema begin with."""
    return f"xl3m:{schema}"


PREFIX = prefix(SCHEMA)


@lru_cache(maxsize=4096)
def _quoted(name: str) -> str:
    return quote(name, safe="._:/-~")


def _of_stream(stream: str, what: str) -> str:
    return f"{PREFIX}:{{{_quoted(stream)}}}:{what}"


def schema() -> str:
    """The number of the schema in which a worker wrote here; the same name in every schema."""
    return "xl3m:schema"


def of_stream(stream: str) -> str:
    """A pattern that all names of the stream match, and no other."""
    return _of_stream(stream, "*")


def of_streams() -> str:
    """A pattern that all names of any stream match, and no other."""
    return f"{PREFIX}:{{*}}:*"


def log(stream: str) -> str:
    """The segment log: a Redis Stream, ids are segment indices."""
    return _of_stream(stream, "log")


def tail(stream: str) -> str:
    """What is read and not yet a segment."""
    return _of_stream(stream, "tail")


def cursor(stream: str) -> str:
    """Where the stream stands: version, head, first, offsets, gaps."""
    return _of_stream(stream, "cursor")


def questions(stream: str) -> str:
    """Question id -> its text and whether it is current."""
    return _of_stream(stream, "questions")


def scored_range(stream: str, qid: str) -> str:
    """What of the log is scored for a question: lo, hi, skipped."""
    return _of_stream(stream, f"range:{qid}")


def top(stream: str, qid: str) -> str:
    """The question's top-k: segment index by certainty."""
    return _of_stream(stream, f"top:{qid}")


def text(stream: str, qid: str) -> str:
    """Segments of the top-k, which outlive the log."""
    return _of_stream(stream, f"text:{qid}")


def scores(stream: str, qid: str, block: int) -> str:
    """A block of every score computed for the question, float32."""
    return _of_stream(stream, f"scores:{qid}:{block}")


def streams(partition: str = "") -> str:
    """All streams, or those a topic/partition feeds."""
    return f"{PREFIX}:streams:{partition}" if partition else f"{PREFIX}:streams"


def partition(topic_partition: str) -> str:
    """Where a partition stands: epoch, position, generation of the topic."""
    return f"{PREFIX}:partition:{topic_partition}"


def claim(query_id: str) -> str:
    """Who answers a query, and then its answer."""
    return f"{PREFIX}:query:{_quoted(query_id)}"


def repeated(query_id: str) -> str:
    """That a query's answer was just published once more."""
    return f"{PREFIX}:repeated:{_quoted(query_id)}"


def answer_channel(query_id: str) -> str:
    """Where the answer to a query is published."""
    return f"xl3m:answer:{query_id}"


def update_channel(stream: str) -> str:
    """Where changes of a stream's top-k are published."""
    return f"xl3m:update:{_quoted(stream)}"


def question_id(question: str, *scored_by: str) -> str:
    """Names a question and what scores it: other model, other scores, other id."""
    return blake2b("\0".join((question, *scored_by)).encode(), digest_size=8).hexdigest()
