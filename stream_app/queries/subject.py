"""Subject: what a query asks and what its answer rests on, and the refusal of one without any."""

from typing import NamedTuple

from stream_app.queries.revisions import Basis, Draft
from stream_app.store.state import Snapshot


class RefusedError(Exception):
    """The query has no answer; the message is for its sender."""


class Subject(NamedTuple):
    """What a query asks, and all that the answer rests on. last: the last revision's draft."""

    qid: str
    question: str
    snapshot: Snapshot
    last: Draft | None = None


def basis_of(snapshot: Snapshot) -> Basis:
    """What a ranking follows from."""
    return snapshot.scored_range.read, snapshot.state.tail.end


def has_any_scores(snapshot: Snapshot | None) -> bool:
    """Whether anything was scored for the question."""
    return snapshot is not None and snapshot.scored_range.read > 0
