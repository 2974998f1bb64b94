"""Keys: every name this project uses in Redis, keys and channels, one method each.

All begin with a prefix, so that groups may share one Redis. The schema's version comes next, and
braces put all of a stream in one slot of a Redis Cluster. Knows names only.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote

SCHEMA = 1
SCORES_PER_BLOCK = 65_536
SCORE_BYTES = 4

PREFIX_LENGTH = 64
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(:[A-Za-z0-9._-]+)*")
_TAKEN = re.compile(r"[0-9]+|schema|query|question|answer|update")
"""What stands behind the prefix in a name. If a prefix went on with one of these, its names could
be those of the group with the shorter prefix."""


def prefix_fault(prefix: str) -> str:
    """Why the prefix cannot be used; empty if it can."""
    if len(prefix) > PREFIX_LENGTH or not _PREFIX.fullmatch(prefix):
        return f"must be 1 to {PREFIX_LENGTH} of a-z, A-Z, 0-9, . _ - and : between them"
    if taken := [part for part in prefix.split(":")[1:] if _TAKEN.fullmatch(part)]:
        return f"must not have {taken[0]!r} behind a colon: keys are named so"
    return ""


@lru_cache(maxsize=4096)
def _quoted(name: str) -> str:
    return quote(name, safe="._:/-~")


@dataclass(frozen=True, slots=True)
class Keys:
    """The names that begin with the prefix, which no other prefix's names equal."""

    prefix: str = "xl3m"

    def of_schema(self, number: int) -> str:
        """What all keys of a schema begin with."""
        return f"{self.prefix}:{number}"

    def _named(self, what: str) -> str:
        return f"{self.prefix}:{SCHEMA}:{what}"

    def _of_stream(self, stream: str, what: str) -> str:
        return f"{self.prefix}:{SCHEMA}:{{{_quoted(stream)}}}:{what}"

    # -- patterns and what is no stream's ------------------------------------------------------

    def schema(self) -> str:
        """The number of the schema in which a worker wrote here; the same name in every schema."""
        return f"{self.prefix}:schema"

    def of_stream(self, stream: str) -> str:
        """A pattern that all names of the stream match, and no other."""
        return self._of_stream(stream, "*")

    def of_streams(self) -> str:
        """A pattern that all names of any stream match, and no other."""
        return self._named("{*}:*")

    def streams(self, partition: str = "") -> str:
        """All streams, or those a topic/partition feeds."""
        return self._named(f"streams:{partition}" if partition else "streams")

    def partition(self, topic_partition: str) -> str:
        """Where a partition stands: epoch, position, generation of the topic."""
        return self._named(f"partition:{topic_partition}")

    def groups(self) -> str:
        """Of each topic that is read the consumer group that reads it."""
        return self._named("groups")

    # -- a stream -------------------------------------------------------------------------------

    def log(self, stream: str) -> str:
        """The segment log: a Redis Stream, ids are segment indices."""
        return self._of_stream(stream, "log")

    def tail(self, stream: str) -> str:
        """What is read and not yet a segment."""
        return self._of_stream(stream, "tail")

    def cursor(self, stream: str) -> str:
        """The stream's cursor: version, head, first, offsets, missing offsets (`gaps`)."""
        return self._of_stream(stream, "cursor")

    def questions(self, stream: str) -> str:
        """Question id -> its text and whether it is current."""
        return self._of_stream(stream, "questions")

    # -- a question of a stream -----------------------------------------------------------------

    def scored_range(self, stream: str, qid: str) -> str:
        """What of the log is scored for a question: lo, hi, skipped."""
        return self._of_stream(stream, f"range:{qid}")

    def top(self, stream: str, qid: str) -> str:
        """The question's top-k: segment index by certainty."""
        return self._of_stream(stream, f"top:{qid}")

    def text(self, stream: str, qid: str) -> str:
        """Segments of the top-k, which outlive the log."""
        return self._of_stream(stream, f"text:{qid}")

    def scores(self, stream: str, qid: str, block: int) -> str:
        """A block of every score computed for the question, float32."""
        return self._of_stream(stream, f"scores:{qid}:{block}")

    def all_scores(self, stream: str, qid: str) -> str:
        """What the names of the question's score blocks begin with, a colon behind it."""
        return self._of_stream(stream, f"scores:{qid}")

    def question_keys(self, stream: str, qid: str, head: int) -> list[str]:
        """All keys of a question, and one more block of scores: the head may move meanwhile."""
        named = [make(stream, qid) for make in (self.scored_range, self.top, self.text)]
        blocks = range(head // SCORES_PER_BLOCK + 2)
        return named + [self.scores(stream, qid, block) for block in blocks]

    # -- queries ----------------------------------------------------------------------------------

    def lease(self, query_id: str) -> str:
        """The lease of the worker that answers a query, then the answer."""
        return self._named(f"query:{_quoted(query_id)}")

    def repeated(self, query_id: str) -> str:
        """That a query's answer was just published once more."""
        return self._named(f"repeated:{_quoted(query_id)}")

    # -- channels; Redis has them in common for all its databases ---------------------------------

    def query_channel(self) -> str:
        """Where queries are published."""
        return f"{self.prefix}:query"

    def question_channel(self) -> str:
        """Where the name of a stream is published whose questions changed."""
        return f"{self.prefix}:question"

    def answer_channel(self, query_id: str) -> str:
        """Where the answer to a query is published."""
        return f"{self.prefix}:answer:{query_id}"

    def update_channel(self, stream: str) -> str:
        """Where changes of a stream's top-k are published."""
        return f"{self.prefix}:update:{_quoted(stream)}"


DEFAULT_KEYS = Keys()


def question_id(question: str, *scored_by: str) -> str:
    """Names a question and what scores it: other model, other scores, other id."""
    return blake2b("\0".join((question, *scored_by)).encode(), digest_size=8).hexdigest()
