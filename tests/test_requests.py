"""Requests: valid ones are decoded in every form; others are rejected with a reason for their
sender, as far as it can be read.
"""

import json
import time
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import BadEvent
from stream_app.events import QUESTION_CHARS, decode, encode
from stream_app.queries.kafka import MAX_AGE_SECONDS, too_old
from stream_app.requests import (
    Query,
    Question,
    Sender,
    decode_query,
    decode_question,
    id_of,
    sender_of,
)

LIMIT = 4096
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
STREAM = TEXT.filter(bool)


@given(STREAM, TEXT.filter(str.strip), st.booleans(), st.booleans())
def test_questions_come_through_in_either_form(
    stream: str, question: str, add: bool, as_json: bool
) -> None:
    value = encode({"stream": stream, "question": question, "add": add}, as_json)
    assert decode_question(b"other", value, LIMIT) == Question(stream, question.strip(), add)


@given(STREAM, st.none() | TEXT.filter(str.strip), st.none() | st.floats(0, 90), st.booleans())
def test_queries_come_through_in_either_form(
    stream: str, question: str | None, deadline: float | None, as_json: bool
) -> None:
    fields = {"id": "7", "stream": stream, "question": question, "deadline": deadline}
    query = Query("7", stream, question.strip() if question else None, deadline, as_json)
    assert decode_query(None, encode(fields, as_json), LIMIT) == query
    assert decode(encode(fields, as_json)) == fields


def test_plain_text_is_a_question_or_a_query() -> None:
    assert decode_question(b"s", b" which pump? ", LIMIT) == Question("s", "which pump?")
    assert decode_query(b"s", b"which pump?\n", LIMIT, "t/0/1") == Query(
        "t/0/1", "s", "which pump?"
    )
    for value in (b"[ERROR] means what?", b'"full" means what?', b"42?", "気圧は?".encode()):
        assert decode_question(b"s", value, LIMIT).question == value.decode()


def test_an_empty_question_ends_the_questions() -> None:
    for value in (None, b"", b'{"question": null}', msgpack.packb({"question": None})):
        assert decode_question(b"s", value, LIMIT) == Question("s", None)


@pytest.mark.guarantee("Standing questions")
@pytest.mark.parametrize("value", [b"{}", b'{"qestion": "which?"}', b"\x80", b'{"add": true}'])
def test_a_map_without_a_question_ends_nothing(value: bytes) -> None:
    with pytest.raises(BadEvent, match="'question' is missing"):
        decode_question(b"s", value, LIMIT)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"question": "  "}, "the question is empty"),
        ({"question": "x" * (QUESTION_CHARS + 1)}, "has 65537 characters, more than the 65536"),
        ({"question": 7}, "'question' must be str, not a number"),
        ({"question": "q", "add": "yes"}, "'add' must be bool, not str"),
        ({"question": "q", "stream": 7}, "no stream"),
        ({"question": "q", "stream": "é" * 129}, "has 258 bytes, more than the 256"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadEvent, match=reason):
        decode_question(b"s", json.dumps(fields).encode(), 1 << 20)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": ""}, "'id' must be a text of 1 to 256 bytes"),
        ({"id": "x" * 257}, "'id' must be a text of 1 to 256 bytes"),
        ({"id": True}, "'id' must be a text or a number, not a boolean"),
        ({"id": None}, "'id' must be a text or a number, not null"),
        ({"id": ["7"]}, "'id' must be a text or a number, not a list"),
        ({"id": float("nan")}, "'id' must be a text or a number"),
        ({"deadline": -1}, "seconds from 0 to 90"),
        ({"deadline": True}, "seconds from 0 to 90"),
        ({"deadline": "5"}, "seconds from 0 to 90"),
        ({"stream": None}, "no stream"),
    ],
)
def test_what_is_wrong_with_a_query_is_said(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadEvent, match=reason):
        decode_query(b"s", json.dumps({"id": "1"} | fields).encode(), LIMIT)


# -- fields --------------------------------------------------------------------------------------


@pytest.mark.guarantee("Dead letters")
@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"early": 1}, "'early' must be bool, not a number"),
        (
            {"window": "1h"},
            "unknown field 'window': a query has id, stream, question, deadline, early",
        ),
        ({"k": 10}, "unknown field 'k'"),
        ({"add": True}, "unknown field 'add'"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "unknown fields 'a', 'b', 'c' and 1 more: a query has"),
        ({"x" * 300: 1}, "unknown field 'x{40}[.]{3}'"),
    ],
)
def test_an_unknown_field_of_a_query_is_refused_by_name(
    fields: dict[str, Any], named: str, as_json: bool
) -> None:
    value = encode({"id": "p3", "stream": "s", "question": "q?"} | fields, as_json)
    with pytest.raises(BadEvent, match=named):
        decode_query(None, value, LIMIT)
    assert sender_of(None, value, LIMIT) == Sender("p3", "s", "q?")


@pytest.mark.parametrize("name", ["window", "id", "deadline", "Question"])
def test_an_unknown_field_of_a_question_is_refused_by_name(name: str) -> None:
    value = encode({"question": "q?", name: "1h"})
    with pytest.raises(BadEvent, match=f"unknown field '{name}': a question has stream, question"):
        decode_question(b"s", value, LIMIT)
    assert sender_of(b"s", value, LIMIT).stream == "s"


def test_a_name_of_a_field_may_be_bytes_in_msgpack() -> None:
    with pytest.raises(BadEvent, match="unknown field 'wind"):
        decode_query(b"s", msgpack.packb({b"wind\xff": 1, "id": "7"}), LIMIT)


@pytest.mark.parametrize(
    ("given_", "text"), [(7, "7"), (-1, "-1"), (2**63, f"{2**63}"), (1.5, "1.5")]
)
def test_a_number_as_id_is_taken_as_text(given_: float, text: str) -> None:
    for as_json in (True, False):
        value = encode({"id": given_, "stream": "s"}, as_json)
        assert decode_query(None, value, LIMIT).id == id_of(value, LIMIT) == text


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (["a", "b"], "'stream' must not be a list: ask each stream"),
        ([], "must not be a list"),
        (7, "'stream' must be a stream's name, and is a number"),
        (None, "'stream' must be a stream's name, and is null"),
        (True, "and is a boolean"),
        ({"a": 1}, "and is a map"),
        ("", "and is empty"),
    ],
)
def test_what_is_no_stream_s_name_is_said(stream: Any, reason: str) -> None:
    value = encode({"question": "q?", "stream": stream})
    with pytest.raises(BadEvent, match=reason):
        decode_question(b"key", value, LIMIT)
    with pytest.raises(BadEvent, match=reason):
        decode_query(b"key", value, LIMIT, "fallback")


def test_a_key_is_not_looked_at_where_a_field_names_the_stream() -> None:
    value = encode({"id": "7", "question": "q?", "stream": "s"})
    assert decode_query(b"\x00\xff", value, LIMIT).stream == "s"
    value = encode({"question": "q?", "stream": "s"})
    assert decode_question(b"\x00\xff", value, LIMIT).stream == "s"
    with pytest.raises(BadEvent, match="key is not UTF-8: byte 0 is wrong; name the stream in a"):
        decode_question(b"\xff", b"q?", LIMIT)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_of_any_bytes_a_sender_is_made_out_or_not(key: bytes, value: bytes) -> None:
    sender = sender_of(key, value, LIMIT)
    assert len(sender.id.encode()) <= 256 and len(sender.stream.encode()) <= 256
    assert sender.id == id_of(value, LIMIT)


# -- JSON and plain text -------------------------------------------------------------------------

BEFORE = [b" ", b"\n", b"\r\n\t ", b"\xef\xbb\xbf", b"\xef\xbb\xbf \n", b" \xef\xbb\xbf"]


@pytest.mark.parametrize("before", BEFORE)
def test_json_is_json_whatever_blanks_stand_before_it(before: bytes) -> None:
    value = before + b'{"question": "q", "add": true}'
    assert decode_question(b"s", value, LIMIT) == Question("s", "q", add=True)
    value = before + b'{"id": "q1", "question": "q"}'
    assert decode_query(b"s", value, LIMIT) == Query("q1", "s", "q")
    assert id_of(value, LIMIT) == "q1"


@pytest.mark.parametrize("before", [b"", *BEFORE])
def test_plain_text_is_a_question_whatever_blanks_stand_around_it(before: bytes) -> None:
    assert decode_question(b"s", before + b"which?\n", LIMIT).question == "which?"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b'["which?"]', "a list"),
        (b" [1]", "a list"),
        (b"42", "a number"),
        (b"-1.5e3", "a number"),
        (b"true", "a boolean"),
        (b"null", "null"),
        (b'\xef\xbb\xbf["which?"]', "a list"),
    ],
)
def test_json_that_is_no_map_and_no_text_is_no_question(value: bytes, kind: str) -> None:
    for decoder in (decode_question, decode_query):
        with pytest.raises(BadEvent, match=f"is JSON, but {kind}: send a map"):
            decoder(b"s", value, LIMIT)


def test_a_json_string_says_the_question() -> None:
    value = json.dumps('which "pump"?').encode()
    assert decode_question(b"s", value, LIMIT).question == 'which "pump"?'
    with pytest.raises(BadEvent, match="the question is empty"):
        decode_question(b"s", b'""', LIMIT)


def test_what_begins_as_a_map_and_is_none_is_refused() -> None:
    for value in (b"{which pump?}", b' {"question": "q"', b"{"):
        with pytest.raises(BadEvent, match="is not json"):
            decode_question(b"s", value, LIMIT)


# -- encoding ------------------------------------------------------------------------------------

LATIN = "Wo ist das Gerät?".encode("latin-1")
NOT_UTF8 = [
    LATIN,
    b'{"question": "%s"}' % LATIN,
    b"\x81\xa8question\xb1" + LATIN,
]


@pytest.mark.parametrize("value", NOT_UTF8)
def test_what_is_not_utf8_is_refused_or_replaced(value: bytes) -> None:
    for decoder in (decode_question, decode_query):
        with pytest.raises(BadEvent):
            decoder(b"s", value, LIMIT)
    asked = decode_question(b"s", value, LIMIT, "replace")
    query = decode_query(b"s", value, LIMIT, "7", "replace")
    assert asked.question == query.question == "Wo ist das Ger\ufffdt?"


def test_the_reason_says_where_and_what_to_set() -> None:
    for value, place in ((LATIN, 14), (NOT_UTF8[1], 28)):
        with pytest.raises(BadEvent, match=f"byte {place} is wrong; XL3M_ENCODING=replace"):
            decode_question(b"s", value, LIMIT)


@pytest.mark.parametrize("encoding", ["strict", "replace"])
def test_utf16_and_gzip_are_called_by_their_names(encoding: str) -> None:
    import gzip

    for value, name in (("disk full?".encode("utf-16"), "UTF-16"), (gzip.compress(b"x"), "gzip")):
        with pytest.raises(BadEvent, match=f"it looks like {name}: decode it in the producer"):
            decode_question(b"s", value, LIMIT, encoding)


def test_half_a_surrogate_pair_is_refused_or_replaced() -> None:
    value = b'{"question": "a\\ud800b"}'
    with pytest.raises(BadEvent, match="lone surrogate"):
        decode_question(b"s", value, LIMIT)
    assert decode_question(b"s", value, LIMIT, "replace").question == "a\ufffdb"


# -- old queries ---------------------------------------------------------------------------------


def test_a_query_that_lay_for_long_is_too_old_and_says_since_when() -> None:
    now = 1_800_000_000.0
    just, old = now - MAX_AGE_SECONDS - 29, now - MAX_AGE_SECONDS - 31
    assert too_old(just, 30.0, now) == ""
    assert "asked at 2027-01-15T06:59:29+00:00: too old" in too_old(old, 30.0, now)
    assert "too old" in too_old(0, 30.0, now)


@pytest.mark.parametrize("timestamp", [None, -0.001, 2.0**62, time.time() + 10**7])
def test_a_query_of_no_time_or_from_a_clock_ahead_is_not_too_old(timestamp: float | None) -> None:
    assert too_old(timestamp, 0.0, time.time()) == ""
