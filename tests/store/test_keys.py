"""Key names: all keys of a stream are in one slot of a Redis Cluster, and no two are equal."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.keys import SCHEMA, have_same_rows, question_id

NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80).filter(
    lambda name: len(name.encode()) <= 256
)
QID = st.from_regex(r"[0-9a-f]{24}", fullmatch=True)
OF_STREAM: list[Callable[[str], str]] = [keys.log, keys.tail, keys.cursor, keys.questions]
OF_QUESTION: list[Callable[[str, str], str]] = [keys.scored_range, keys.top, keys.text]


def names_of(stream: str, qid: str) -> list[str]:
    """All names of a stream and of one of its questions."""
    return [
        *(make(stream) for make in OF_STREAM),
        *(make(stream, qid) for make in OF_QUESTION),
        *(keys.rows(stream, qid, block) for block in range(3)),
    ]


@given(NAME, QID)
def test_all_keys_of_a_stream_are_in_one_slot(stream: str, qid: str) -> None:
    slots = {key_slot(name.encode()) for name in names_of(stream, qid)}
    assert len(slots) == 1


@given(NAME, NAME, QID)
def test_distinct_streams_share_no_key(one: str, other: str, qid: str) -> None:
    shared = set(names_of(one, qid)) & set(names_of(other, qid))
    assert bool(shared) == (one == other)
    assert len(set(names_of(one, qid))) == len(names_of(one, qid))


@given(NAME, QID)
def test_only_plain_letters_reach_a_key(stream: str, qid: str) -> None:
    for name in names_of(stream, qid):
        assert name.isascii() and name.isprintable() and " " not in name
        assert name.count("{") == name.count("}") == 1
        assert name.startswith(f"xl3m:{SCHEMA}:{{")


@given(NAME, NAME)
def test_channels_and_leases_have_distinct_names(one: str, other: str) -> None:
    assert (keys.update_channel(one) == keys.update_channel(other)) == (one == other)
    assert (keys.lease(one) == keys.lease(other)) == (one == other)
    assert keys.repeated(one) != keys.lease(other)
    assert keys.update_channel(one).isprintable()


def test_names_that_need_no_quoting_stay_readable() -> None:
    assert keys.log("app/web-1:a_b.c") == f"xl3m:{SCHEMA}:{{app/web-1:a_b.c}}:log"
    assert keys.log("a b{}ü") == f"xl3m:{SCHEMA}:{{a%20b%7B%7D%C3%BC}}:log"


def test_the_id_of_a_question_depends_on_what_scores_it() -> None:
    assert question_id("q", "m", "t") == question_id("q", "m", "t")
    assert len({question_id("q", "m", t) for t in "tu"} | {question_id("q", "n")}) == 3
    ranked = [question_id("q", "m", ranked_by=(measure, k)) for measure in "ab" for k in "12"]
    assert len(set(ranked)) == 4
    assert all(have_same_rows(one, other) for one in ranked for other in ranked)
    assert not have_same_rows(ranked[0], question_id("q", "n", ranked_by=("a", "1")))
