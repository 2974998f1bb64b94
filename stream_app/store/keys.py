"""Keys: the name of every key and channel in Redis, one method each.

All names begin with a prefix, so that several groups can share one Redis. In keys, the number of
the schema follows. Braces around the stream's name put all its keys in one slot of a Redis Cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote

SCHEMA = 2
ROWS_PER_BLOCK = 8192
"""A block, a Redis string, is then about 200 KB."""


@lru_cache(maxsize=4096)
def _quoted(name: str) -> str:
    return quote(name, safe="._:/-~")


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of one prefix. Names of different prefixes are never equal."""

    prefix: str = "xl3m"

    def of_schema(self, number: int) -> str:
        """The beginning of all keys of a schema."""
        return f"{self.prefix}:{number}"

    def _named(self, what: str) -> str:
        return f"{self.prefix}:{SCHEMA}:{what}"

    def _of_stream(self, stream: str, what: str) -> str:
        return f"{self.prefix}:{SCHEMA}:{{{_quoted(stream)}}}:{what}"

    # -- patterns, and keys that belong to no stream -------------------------------------------

    def schema(self) -> str:
        """The number of the schema that workers write in; its name is the same in every schema."""
        return f"{self.prefix}:schema"

    def of_stream(self, stream: str) -> str:
        """A pattern that matches all keys of the stream, and no others."""
        return self._of_stream(stream, "*")

    def of_streams(self) -> str:
        """A pattern that matches all keys of all streams, and no others."""
        return self._named("{*}:*")

    def streams(self, partition: str = "") -> str:
        """The set of all streams, or of those with events from a topic/partition."""
        return self._named(f"streams:{partition}" if partition else "streams")

    def partition(self, topic_partition: str) -> str:
        """A partition's epoch, position and incarnation, in a hash."""
        return self._named(f"partition:{topic_partition}")

    def groups(self) -> str:
        """The consumer group that reads each topic, in a hash."""
        return self._named("groups")

    # -- a stream -------------------------------------------------------------------------------

    def log(self, stream: str) -> str:
        """The segment log: a Redis Stream whose ids are segment indices."""
        return self._of_stream(stream, "log")

    def tail(self, stream: str) -> str:
        """The tail: text that is not part of a complete segment yet."""
        return self._of_stream(stream, "tail")

    def cursor(self, stream: str) -> str:
        """The cursor, in a hash: version, head, first, offsets, missing offsets."""
        return self._of_stream(stream, "cursor")

    def questions(self, stream: str) -> str:
        """The questions by id, in a hash."""
        return self._of_stream(stream, "questions")

    # -- a question of a stream -----------------------------------------------------------------

    def scored_range(self, stream: str, qid: str) -> str:
        """The question's scored range, in a hash: lo, hi, read, skipped, rebuilt, and the top-k's
        size, and the log's first segment when it was written last."""
        return self._of_stream(stream, f"range:{qid}")

    def top(self, stream: str, qid: str) -> str:
        """The question's top-k: segment indices sorted by their final scores."""
        return self._of_stream(stream, f"top:{qid}")

    def text(self, stream: str, qid: str) -> str:
        """The segments of the top-k, in a hash; they are kept when the log is trimmed."""
        return self._of_stream(stream, f"text:{qid}")

    def rows(self, stream: str, qid: str, block: int) -> str:
        """A block of the question's rows, one for each segment; see `rows`."""
        return self._of_stream(stream, f"rows:{qid}:{block}")

    def all_rows(self, stream: str, qid: str) -> str:
        """The beginning of the keys of a question's blocks; a colon and the block follow."""
        return self._of_stream(stream, f"rows:{qid}")

    def question_keys(self, stream: str, qid: str, head: int) -> list[str]:
        """All keys of a question, with one block more in case the head moves meanwhile."""
        named = [make(stream, qid) for make in (self.scored_range, self.top, self.text)]
        blocks = range(head // ROWS_PER_BLOCK + 2)
        return named + [self.rows(stream, qid, block) for block in blocks]

    # -- queries ----------------------------------------------------------------------------------

    def lease(self, query_id: str) -> str:
        """The query's lease, and later its answer."""
        return self._named(f"query:{_quoted(query_id)}")

    def repeated(self, query_id: str) -> str:
        """Exists for a while after the query's answer was published again."""
        return self._named(f"repeated:{_quoted(query_id)}")

    # -- channels, which all databases of a Redis server share -----------------------------------

    def query_channel(self) -> str:
        """Clients publish queries here."""
        return f"{self.prefix}:query"

    def question_channel(self) -> str:
        """The name of a stream is published here when its questions change."""
        return f"{self.prefix}:question"

    def answer_channel(self, query_id: str) -> str:
        """The text of a query's answer and the answer are published here."""
        return f"{self.prefix}:answer:{query_id}"

    def update_channel(self, stream: str) -> str:
        """Changes of a stream's top-k are published here."""
        return f"{self.prefix}:update:{_quoted(stream)}"


DEFAULT_KEYS = Keys()


def question_id(question: str, *scored_by: str, ranked_by: Sequence[str] = ()) -> str:
    """An id of a question, of what scores it, as another model gives other rows, and of what ranks
    its rows: the measure and k."""
    return _digest(8, question, *scored_by) + _digest(4, *ranked_by)


def have_same_rows(one: str, other: str) -> bool:
    """Whether these ids are of one question scored by one model, if ranked differently."""
    return one[:16] == other[:16]


def _digest(size: int, *parts: str) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=size).hexdigest()
