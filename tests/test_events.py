"""The wire format: any bytes are decoded or rejected with a reason, and nothing else happens."""

import base64
import json
import struct
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.errors import BadEvent
from stream_app.events import (
    QUESTION_CHARS,
    Chunk,
    dead_letter,
    decode,
)
from stream_app.formats.presets import PRESETS
from stream_app.ingest.decoder import TokenDecoder
from stream_app.requests import Query, Question, decode_query, decode_question
from stream_app.settings import Format, Settings
from tests.support import tiny

FORMATS = get_args(Format)
LIMIT = 4096
TOKENIZER = tiny.tokenizer()

ANY_TEXT = st.text(st.characters(), max_size=12)  # lone surrogates and NUL among them
NAMES = st.sampled_from(["text", "ids", "time", "question", "stream", "id", "add", "deadline"])
INTEGERS = st.integers(-(2**63), 2**64 - 1)  # those of msgpack
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    INTEGERS,
    st.floats(),
    ANY_TEXT,
    st.binary(max_size=8),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8)),
    st.builds(msgpack.Timestamp, st.integers(0, 2**40)),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner), max_leaves=8
)
MAPS = st.dictionaries(NAMES | ANY_TEXT | st.binary(max_size=3) | INTEGERS, VALUES, max_size=9)


def as_msgpack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, unicode_errors="surrogatepass"))


def as_json(value: Any) -> bytes:
    return json.dumps(value, default=repr, skipkeys=True).encode()


BYTES = st.one_of(
    st.binary(max_size=40),
    ANY_TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
    MAPS.map(as_msgpack),
    MAPS.map(as_json),
    MAPS.map(as_msgpack).flatmap(lambda whole: st.integers(0, len(whole)).map(lambda n: whole[:n])),
)
TORTURE = [
    b'{"text":' * 100_000,
    b"[" * 100_000,
    b'{"text":' + b"[" * 3000 + b"]" * 3000 + b"}",
    b"\x81\xa4text" + b"\x91" * 3000 + b"\xc0",
    b"\x81\xa4text\xdd\xff\xff\xff\xff",
    b"\x81\xa4text\xdb\xff\xff\xff\xff",
    b"\x81\xa4time\xd6\xff\xff\xff\xff\xff",
    b"\x81\xa4time\xc7\x0c\xff" + b"\xff" * 12,
    b'{"text": "x", "time": NaN}',
    b'{"text": "x", "time": 1e999}',
    b'{"text": "x", "time": ' + b"9" * 3000 + b"}",
    b'{"text": "x", "time": ' + b"9" * 5000 + b"}",
    b'{"id": "x", "deadline": -Infinity, "question": "q", "stream": "s"}',
    b'{"text": "\\ud800", "stream": "\\udfff", "question": "\\ud800", "id": "\\udc00"}',
    '{"text": "x"}'.encode("utf-16"),
    "\N{ZERO WIDTH NO-BREAK SPACE}{}".encode(),
    b"\x00",
    b"{",
    b"x" * (LIMIT + 1),
]


def chunks(
    key: bytes | None, value: bytes | None, format: Any = "lines", **changes: Any
) -> list[Chunk]:
    """The chunks of an event; raises BadEvent with the reason if any record is unusable."""
    settings = Settings(input_format=format, **{"max_event_bytes": LIMIT} | changes)
    decoder = TokenDecoder(settings, TOKENIZER.decode)
    found, reason = decoder.decode(key, value, source="t/0", time_ms=1000)
    if reason:
        raise BadEvent(reason)
    return found


def chunk(key: bytes | None, value: bytes | None, format: Any = "lines", **changes: Any) -> Chunk:
    [one] = chunks(key, value, format, **changes)
    return one


def outcomes(key: bytes | None, value: bytes | None, limit: int = LIMIT) -> list[Any]:
    """The results of all decoders; BadEvent is the only exception allowed."""
    calls: list[Any] = [
        lambda: decode_question(key, value, limit),
        lambda: decode_query(key, value, limit, "fallback"),
        lambda: decode_query(key, value, limit),
        lambda: decode_query(key, value, limit, encoding="replace"),
        lambda: decode(value or b""),
        *[lambda f=f: chunks(key, value, f, max_event_bytes=limit) for f in (*FORMATS, *PRESETS)],
        lambda: chunks(key, value, "json", max_event_bytes=limit, key_field="stream"),
    ]
    return [attempt(call) for call in calls]


def attempt(call: Any) -> Any:
    try:
        return call()
    except BadEvent as error:
        assert str(error)
        return error


@pytest.mark.guarantee("Dead letters")
@given(st.none() | BYTES, st.none() | BYTES)
@example(None, None)
@example(b"", b"")
def test_any_bytes_decode_or_are_refused(key: bytes | None, value: bytes | None) -> None:
    for outcome in outcomes(key, value):
        for each in outcome if isinstance(outcome, list) else [outcome]:
            if isinstance(each, Chunk | Question | Query):
                assert 1 <= len(each.stream.encode()) <= 256
            if isinstance(each, Chunk):
                each.text.encode()
                assert 0 <= each.time_ms < 10**15


@pytest.mark.guarantee("Dead letters")
@pytest.mark.parametrize("value", TORTURE, ids=range(len(TORTURE)))
def test_hostile_bytes_are_refused_whatever_the_limit(value: bytes) -> None:
    outcomes(b"s", value)
    outcomes(b"s", value, limit=10_000_000)


@pytest.mark.guarantee("Dead letters")
@pytest.mark.parametrize("format", FORMATS)
def test_an_event_over_the_limit_is_refused_with_both_numbers(format: str) -> None:
    with pytest.raises(BadEvent, match="4097 bytes, more than the 4096"):
        chunk(b"s", b"x" * (LIMIT + 1), format)
    assert chunk(b"s", b"x" * LIMIT).text == "x" * LIMIT + "\n"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
STREAM = TEXT.filter(bool)


@given(STREAM, TEXT, st.integers(10**11, 10**14 - 1))
def test_good_events_come_through_in_every_format(stream: str, text: str, time_ms: int) -> None:
    key, line = stream.encode(), text if text.endswith("\n") else text + "\n"
    fields = {"text": text, "time": time_ms}
    if not text:
        assert not chunks(key, json.dumps(fields).encode(), "json")
        assert not chunks(key, msgpack.packb(fields), "msgpack")
        assert not chunks(key, b"")
    else:
        assert chunk(key, json.dumps(fields).encode(), "json") == Chunk(stream, line, time_ms)
        assert chunk(key, msgpack.packb(fields), "msgpack") == Chunk(stream, text, time_ms)
        assert chunk(key, text.encode()) == Chunk(stream, line, 1000)


def test_the_stream_is_the_key_or_else_the_topic_and_partition() -> None:
    assert chunk(b"s", b"x").stream == "s"
    assert chunk(None, b"x").stream == chunk(b"", b"x").stream == "t/0"
    with pytest.raises(BadEvent, match="key is not UTF-8: byte 1"):
        chunk(b"s\xff", b"x")
    with pytest.raises(BadEvent, match="257 bytes, more than the 256"):
        chunk(b"s" * 257, b"x")


def test_fields_are_found_under_the_names_in_the_settings() -> None:
    value = b'{"msg": "x", "at": 1700000000.5, "host": "web-1"}'
    names = {"text_field": "msg", "time_field": "at", "key_field": "host"}
    assert chunk(b"s", value, "json", **names) == Chunk("web-1", "x\n", 1_700_000_000_500)
    with pytest.raises(BadEvent, match="'text' is missing"):
        chunk(b"s", value, "json")


@pytest.mark.parametrize("time", [-1, float("nan"), float("inf"), 1e300, "now", True, [1]])
def test_a_time_that_is_none_costs_no_text(time: Any) -> None:
    for form, value in (("json", as_json), ("msgpack", as_msgpack)):
        one = chunk(b"s", value({"text": "x", "time": time}), form)
        assert (one.text.strip(), one.time_ms) == ("x", 1000)


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False))


def test_token_ids_are_decoded() -> None:
    value = msgpack.packb({"ids": ids_of("Pumpe läuft\n気圧")})
    assert chunk(b"s", value, "msgpack").text == "Pumpe läuft\n気圧"


def test_ids_that_split_a_character_are_refused() -> None:
    whole = ids_of("ab気")
    for part in (whole[:-1], whole[-1:], whole[-2:]):
        with pytest.raises(BadEvent, match="inside a character"):
            chunk(b"s", msgpack.packb({"ids": part}), "msgpack")


@pytest.mark.parametrize("ids", [[], None, "abc", [1.5], ["1"], [-1], [2**31], [[1]], {"a": 1}])
def test_ids_must_be_a_list_of_ids(ids: Any) -> None:
    with pytest.raises(BadEvent, match="list of token ids"):
        chunk(b"s", msgpack.packb({"ids": ids}), "msgpack")


def test_ids_the_tokenizer_fails_on_are_refused() -> None:
    def failing(ids: list[int]) -> str:
        raise IndexError("no such token")

    with pytest.raises(BadEvent, match="cannot be decoded: no such token"):
        TokenDecoder(Settings(input_format="msgpack"), failing).decode(
            b"s", msgpack.packb({"ids": [9]}), source="t/0", time_ms=0
        )


def test_a_json_event_is_no_msgpack_event_and_back() -> None:
    with pytest.raises(BadEvent, match="not a msgpack map"):
        chunk(b"s", b'{"text": "x"}', "msgpack")
    with pytest.raises(BadEvent, match="not a json map"):
        chunk(b"s", msgpack.packb({"text": "x"}), "json")


def test_a_msgpack_timestamp_or_extension_is_not_a_text() -> None:
    for value in (msgpack.ExtType(5, b"x"), msgpack.Timestamp(1), b"bytes"):
        with pytest.raises(BadEvent, match="'text' must be str"):
            chunk(b"s", msgpack.packb({"text": value}), "msgpack")


@pytest.mark.guarantee("Dead letters")
@given(st.none() | st.binary(max_size=50), st.none() | st.binary(max_size=50), TEXT)
def test_a_dead_letter_says_where_why_and_what(
    key: bytes | None, value: bytes | None, reason: str
) -> None:
    letter = json.loads(dead_letter("topic", 3, 2**40, key, value, reason))
    assert (letter["topic"], letter["partition"], letter["offset"]) == ("topic", 3, 2**40)
    assert letter["reason"] == reason
    assert base64.b64decode(letter["key"]) == (key or b"")
    assert base64.b64decode(letter["value"]) == (value or b"")


def test_a_dead_letter_holds_no_more_than_the_beginning_of_a_huge_value() -> None:
    letter = json.loads(dead_letter("t", 0, 0, None, b"x" * 10_000_000, "too long"))
    assert base64.b64decode(letter["value"]) == b"x" * QUESTION_CHARS


def test_floats_of_four_bytes_are_numbers_too() -> None:
    value = b"\x82\xa4text\xa1x\xa4time\xca" + struct.pack(">f", 2.0)
    assert chunk(b"s", value, "msgpack") == Chunk("s", "x", 2000)


@pytest.mark.guarantee("Dead letters")
def test_a_dead_letter_fits_its_topic_whatever_was_sent() -> None:
    huge = b"x" * 5_000_000
    assert len(dead_letter("t", 0, 0, huge, huge, "r" * 10_000)) < 1_000_000


@pytest.mark.parametrize(
    ("time", "milliseconds"),
    [
        ("2024-05-01T12:00:00Z", 1_714_564_800_000),
        ("2024-05-01T14:00:00.250+02:00", 1_714_564_800_250),
        ("2024-05-01 12:00:00", 1_714_564_800_000),
    ],
)
def test_times_may_be_iso_8601(time: str, milliseconds: int) -> None:
    value = json.dumps({"text": "x", "time": time}).encode()
    assert chunk(b"s", value, format="json").time_ms == milliseconds


def test_a_msgpack_map_may_have_many_fields() -> None:
    fields = {"text": "x"} | {f"field {i}": i for i in range(40)}
    assert chunk(b"s", msgpack.packb(fields), format="msgpack").text == "x"
