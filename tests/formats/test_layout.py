"""Formats: paths, templates, arrays, keys and times of events, and their settings."""

import json
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import BadEvent, SettingsError
from stream_app.formats.notes import MAX_FORMS, Notes
from stream_app.formats.paths import compile_paths
from stream_app.formats.templates import FIELDS, compile_text
from stream_app.formats.values import as_text
from stream_app.ingest.decoder import EXTRA_CHARS, GROWTH
from stream_app.settings import Settings
from tests.support.decoding import KAFKA_MS, T0, chunks, decoded, decoder

CASES = Path(__file__).parents[1] / "cases"

# -- paths, templates and arrays -----------------------------------------------------------------

FLAT = [
    ({"host.name": "flat", "host": {"name": "nested"}}, "host.name", "flat"),
    ({"host": {"name": "nested"}}, "host.name", "nested"),
    ({"host.name": None, "host": {"name": "nested"}}, "host.name", "nested"),
    ({"a.b": {"c": "partly"}, "a": {"b": {"c": "nested"}}}, "a.b.c", "partly"),
    ({"a.b": {}, "a": {"b.c": "behind"}}, "a.b.c", "behind"),
    ({"a": [{"b": 7}]}, "a[0].b", "7"),
    ({"a": [{"b": 7}]}, "a.0.b", "7"),
    ({"a": {"0": "a name"}}, "a.0", "a name"),
    ({"a": [1]}, "a[1]", None),
    ({"a": [[5]]}, "a[0][0]", "5"),
    ({"attributes": [{"key": "x"}, {"key": "k.v", "value": 1}]}, "attributes[k.v]", "1"),
    ({"attributes": {"k.v": 1}}, "attributes[k.v]", "1"),
    ({"b": 1}, "a, b", "1"),
    ({"a": "", "b": 1}, "a,b", "1"),
    ({"a": True}, "a", "true"),
    ({"a": 1.0}, "a", "1.0"),
    ({"a": 10**30}, "a", str(10**30)),
    ({"a": {"x": ["é", None]}}, "a", '{"x":["é",null]}'),
    ({"a": "half \ud83d"}, "a", "half \N{REPLACEMENT CHARACTER}"),
    ("no map", "a", None),
    ({}, "a", None),
]


@pytest.mark.parametrize(("record", "path", "text"), FLAT)
def test_a_path_leads_through_names_and_places(record: Any, path: str, text: str | None) -> None:
    assert compile_text(path, "IT", "", as_text)((record,)) == text


NAMES = st.sampled_from(["a", "b", "c"])
TREES = st.recursive(
    st.none() | st.integers(0, 9),
    lambda inner: st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(".".join), inner),
    max_leaves=12,
)


def slow(tree: Any, names: list[str]) -> Any:
    """Every way to part the names, the longest first name first."""
    if not names:
        return tree
    if isinstance(tree, dict):
        for taken in range(len(names), 0, -1):
            name = ".".join(names[:taken])
            if name in tree and (found := slow(tree[name], names[taken:])) is not None:
                return found
    return None


@given(TREES, st.lists(NAMES, min_size=1, max_size=4))
def test_a_compiled_path_is_the_slow_one(tree: Any, names: list[str]) -> None:
    (path,) = compile_paths(".".join(names), "IT")
    assert path((tree,)) == slow(tree, names)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{level} {host.name} {message}", "ERROR web-1 disk is full"),
        ("{{{level}}}", "{ERROR}"),
        ("{none,level}: {none}!", "ERROR: !"),
        ("{none} {nothing}", None),
    ],
)
def test_a_template_makes_one_text_of_several_fields(template: str, text: str | None) -> None:
    record = {"level": "ERROR", "host": {"name": "web-1"}, "message": "disk is full"}
    assert compile_text(template, "IT", "", as_text)((record,)) == text


BATCH = {
    "logGroup": "g",
    "time": T0,
    "records": [{"text": "a"}, {"text": "b", "time": T0 + 5, "logGroup": "own"}, {"text": 3}],
}
THREE = [("g", "a\n", T0), ("own", "b\n", T0 + 5), ("g", "3\n", T0)]


@pytest.mark.parametrize(
    "settings",
    [
        {"records_field": "records[]"},
        {"records_field": "records"},
        {"text_field": "records[].text", "time_field": "records[].time"},
        {"text": "{records[].text}", "records_field": "records[]"},
    ],
)
def test_the_records_of_an_array_are_several_and_what_they_lack_is_looked_for_outward(
    settings: dict[str, Any],
) -> None:
    assert chunks(BATCH, input_format="json", key_field="logGroup", **settings) == THREE


def test_arrays_and_documents_one_after_another_are_several_records_without_a_setting() -> None:
    records = [{"text": "a"}, {"text": "b"}]
    right = [("key", "a\n", KAFKA_MS), ("key", "b\n", KAFKA_MS)]
    lines = [json.dumps(record).encode() for record in records]
    for value in (
        json.dumps(records).encode(),
        json.dumps(records).encode("utf-16"),
        json.dumps(records).encode("utf-32-be"),
        b"\n".join(lines) + b"\n",
        b" ".join(lines),
        b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines),
        b"\n \t" + json.dumps(records[0], indent=2).encode() + lines[1],
    ):
        assert chunks(value, input_format="json") == right
    assert chunks(records, input_format="json", records_field="[]") == right
    assert (
        chunks(b'{"lines": ["a", null, "b"]}', input_format="json", text_field="lines[]") == right
    )


def test_what_is_wrong_with_a_record_is_said_and_the_others_are_taken() -> None:
    value = b'[{"text": "a"}, {"txt": 1}, 5, {"text": "b"}, null, {"text": ""}]'
    made = decoder(input_format="json")
    found, reason = decoded(made, value)
    assert [chunk.text for chunk in found] == ["a\n", "b\n"]
    assert reason.startswith("record 2 of 5: field 'text' is missing")
    assert reason.endswith("(and 1 more)")
    assert made.notes.skipped == 2
    found, reason = decoded(made, b'{"text": "a"}\nnot json\n{"text": "b"}\n')
    assert [chunk.text for chunk in found] == ["a\n", "b\n"]
    assert reason.startswith("record 2 of 3: it is not json")


def test_an_event_without_the_array_is_refused_with_its_path() -> None:
    with pytest.raises(BadEvent, match=r"no array at records\[\]: see XL3M_RECORDS_FIELD"):
        chunks({"text": "a"}, input_format="json", records_field="records[]")
    assert chunks({"records": []}, input_format="json", records_field="records[]") == []


@pytest.mark.guarantee("Event formats")
def test_an_event_does_not_become_very_many_times_its_size() -> None:
    value = {"records": [{}] * 5000, "text": "x" * 5000}
    made = decoder(input_format="json", records_field="records[]")
    found, reason = decoded(made, value)
    assert sum(len(chunk.text) for chunk in found) <= GROWTH * len(json.dumps(value)) + EXTRA_CHARS
    assert "record" in reason and "of 5000" in reason and "more than 4 times its bytes" in reason
    wide = "{text}" * FIELDS
    with pytest.raises(BadEvent, match="more than 4 times its bytes"):
        chunks({"text": "x" * 9000}, input_format="json", text=wide)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"input_format": "json:yaml"}, "json:ecs, json:fluentbit, json:docker"),
        (
            {"input_format": "msgpack:ecs"},
            "XL3M_INPUT_FORMAT must be one of lines, cri, json, msgpack",
        ),
        ({"text": "no field"}, "XL3M_TEXT must have fields in braces"),
        ({"text": "{a} {b"}, "XL3M_TEXT: unbalanced brace"),
        ({"text": "a}"}, "XL3M_TEXT: unbalanced brace"),
        ({"text": "{}"}, "XL3M_TEXT: '' is not a path"),
        ({"text": "{message}" * 10_000}, "XL3M_TEXT must have 1 to 32 fields"),
        ({"text": "{a}", "text_field": "b"}, "XL3M_TEXT and XL3M_TEXT_FIELD both"),
        ({"text_field": "a..b"}, "XL3M_TEXT_FIELD: 'a..b' is not a path"),
        ({"text_field": "a[b"}, "XL3M_TEXT_FIELD: 'a\\[b' is not a path"),
        ({"time_field": "a[].b"}, "XL3M_TIME_FIELD: 'a\\[\\].b' has arrays that are not"),
        ({"key_field": ".".join("a" * 13)}, "XL3M_KEY_FIELD: .* more than 12 steps"),
        ({"records_field": "[" * 9}, "XL3M_RECORDS_FIELD"),
        ({"records_field": "a[]." * 9 + "b[]"}, "XL3M_RECORDS_FIELD must be at most 8 arrays"),
        ({"records_field": "a[]", "text_field": "b[].c"}, "name different arrays"),
        ({"time_from_line": "("}, "XL3M_TIME_FROM_LINE is not a valid regular expression"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_start(
    settings: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        Settings.from_env({}, **({"input_format": "json"} | settings))


# -- streams and times ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "stream"),
    [(7, "7"), (None, "key"), ("", "key"), ({"name": "x"}, "key"), (["x"], "key"), (True, "true")],
)
def test_where_the_field_names_no_stream_the_key_does(host: Any, stream: str) -> None:
    made = decoder(input_format="json", key_field="host")
    assert decoded(made, {"text": "a", "host": host})[0][0].stream == stream
    assert made.notes.missing_keys == int(stream == "key")
    assert decoded(made, {"text": "a"}, key=None)[0][0].stream == "t/0"


@pytest.mark.guarantee("Event formats")
def test_a_key_that_is_not_needed_is_not_looked_at() -> None:
    value = {"text": "a", "host": "web-1"}
    assert chunks(value, key=b"\xff\x00", input_format="json", key_field="host")[0][0] == "web-1"
    tenant = [("tenant", b"acme")]
    for settings in ({"input_format": "lines"}, {"input_format": "json"}):
        found = chunks(value, b"\xff", tenant, key_field="header:tenant", **settings)
        assert found[0][0] == "acme"


def test_a_header_names_the_stream_else_the_key() -> None:
    made = decoder(input_format="lines", key_field="header:tenant")
    headers: Any = [("tenant", b"first"), ("trace", None), ("tenant", b"last")]
    assert decoded(made, b"x", headers=headers)[0][0].stream == "last"
    for odd in ([], [("tenant", None)], [("tenant", b"")], [("tenant", b"\xff")]):
        assert decoded(made, b"x", headers=odd)[0][0].stream == "key"
    assert made.notes.missing_keys == 4


@pytest.mark.parametrize(
    ("key_format", "key", "stream"),
    [
        ("utf8", "é".encode(), "é"),
        ("hex", b"\xff\x00\x01", "ff0001"),
        ("long", (42).to_bytes(8, "big"), "42"),
        ("long", b"\xff" * 8, "-1"),
        ("int", (7).to_bytes(4, "big"), "7"),
        ("uuid", bytes(range(16)), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        ("uuid", b"00010203040506070809-0a0b0c0d0e0f", "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        ("none", b"\xff", "t/0"),
        ("hex", None, "t/0"),
        ("long", b"", "t/0"),
    ],
)
def test_keys_are_read_in_the_form_the_settings_say(
    key_format: str, key: bytes | None, stream: str
) -> None:
    made = decoder(input_format="lines", key_format=key_format)
    for _ in range(2):  # and again, when it is known
        assert decoded(made, b"x", key)[0][0].stream == stream


@pytest.mark.parametrize(
    ("key_format", "key", "named"),
    [
        ("utf8", b"\xff" * 8, "XL3M_KEY_FORMAT=hex.*8 bytes, like long"),
        ("utf8", b"\xff" * 16, "16 bytes, like uuid"),
        ("utf8", b"\xff" * 5, "XL3M_KEY_FORMAT=hex.long.int.uuid.none$"),
        ("long", b"1234", "4 bytes, not 8 as XL3M_KEY_FORMAT=long needs"),
        ("int", b"12345678", "8 bytes, not 4 as XL3M_KEY_FORMAT=int needs"),
        ("uuid", b"no uuid", "XL3M_KEY_FORMAT=uuid"),
    ],
)
def test_a_key_in_another_form_is_refused_with_what_to_set(
    key_format: str, key: bytes, named: str
) -> None:
    for _ in range(2):
        with pytest.raises(BadEvent, match=named):
            chunks(b"x", key, input_format="lines", key_format=key_format)


def test_a_key_that_looks_binary_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    made = decoder(input_format="lines")
    for number in (1, 1, 2):
        assert decoded(made, b"x", number.to_bytes(8, "big"))[0]
    (record,) = caplog.records
    assert "XL3M_KEY_FORMAT" in record.getMessage() and "like long" in record.getMessage()


def test_a_time_that_is_not_understood_is_named_once_for_its_form(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = decoder(input_format="json")
    for time in ("at 10", "at 11", "later", None, {"x": 1}, T0):
        decoded(made, {"text": "a", "time": time})
    assert made.notes.unparsed == 4
    assert len(caplog.records) == 3
    assert all("stream 'key'" in record.getMessage() for record in caplog.records)


def test_the_log_names_no_more_than_so_many_forms(caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    for number in range(MAX_FORMS + 50):
        notes.unparsed_time(f"stream {number}", "odd")
    assert len(caplog.records) == MAX_FORMS
    assert caplog.records[-1].getMessage().endswith("further forms are not logged")


def test_what_a_record_has_hides_what_it_lies_in_though_it_be_null() -> None:
    value = {"text": "outer", "records": [{"text": None}, {"text": "inner"}, {}]}
    texts = [text for _, text, _ in chunks(value, input_format="json", records_field="records[]")]
    assert texts == ["inner\n", "outer\n"]


def test_lines_have_each_its_own_time() -> None:
    value = b"2026-11-30 10:00:00 a\n\tat b\n2026-11-30T10:00:01Z c"
    assert chunks(value, input_format="lines", time_from_line="auto") == [
        ("key", "2026-11-30 10:00:00 a\n\tat b\n", T0),
        ("key", "2026-11-30T10:00:01Z c\n", T0 + 1000),
    ]
    made = decoder(input_format="lines", time_from_line="auto")
    assert decoded(made, b"no time")[0][0].time_ms == KAFKA_MS
    assert made.notes.unparsed == 1


def test_lines_without_a_time_are_named_once_a_stream_and_by_the_setting_that_reads_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = decoder(input_format="lines", time_from_line="auto")
    for line in (b"Caused by: x", b"\tat a.b(C.java:1)", b"\tat de.f(G.java:22)"):
        decoded(made, line)
    [record] = caplog.records
    assert "the line 'Caused by: x\\n' has no time" in record.getMessage()
    assert "XL3M_TIME_FROM_LINE" in record.getMessage()
    assert made.notes.unparsed == 3


def test_a_map_of_msgpack_has_its_time_and_stream_where_the_settings_say() -> None:
    fields: dict[str, Any] = {
        "time_field": "at",
        "key_field": "host.name",
        "input_format": "msgpack",
    }
    value = {"text": "a\n", "at": msgpack.Timestamp(T0 // 1000, 5_000_000), "host": {"name": "h"}}
    assert chunks(bytes(msgpack.packb(value)), **fields) == [("h", "a\n", T0 + 5)]
    made = decoder(input_format="msgpack")
    for empty in (None, ""):
        assert decoded(made, bytes(msgpack.packb({"text": empty}))) == ([], "")
    assert made.notes.skipped == 2


# -- the whole file of cases ---------------------------------------------------------------------

NOT_JSON, NOT_UTF8 = "the value is not json", "the value is not UTF-8"
# What is right for the rows behind those of times, which tests/formats/test_times.py holds.
ROWS: list[list[tuple[str, str]] | str] = [
    [("7", "host is a number")],
    [("key", "host is null")],
    [("key", "host is empty")],
    [("key", "host is missing")],
    [("key", "host is a map")],
    [],
    [("m-num", "42")],
    [("m-map", '{"event":"login","user":"kova"}')],
    [("m-list", '["a","b"]')],
    [],
    "field 'message' is missing: XL3M_TEXT_FIELD",
    [("m-ansi", "\x1b[31mERROR\x1b[0m disk full")],
    [("m-nul", "a\0b")],
    [("m-surr", "half \N{REPLACEMENT CHARACTER} emoji")],
    [("m-crlf", "line one\r\nline two\rline three\u2028line four\x85five")],
    [("arr", "array of events 1"), ("arr", "2")],
    "it is a JSON string, not an object",
    "it is a JSON number, not an object",
    [],
    NOT_JSON,
    [],
    [("dup", "second")],
    [("trail", "a"), ("trail2", "b")],
    [("bom", "with a BOM")],
    NOT_UTF8,
]


@pytest.mark.guarantee("Event formats")
def test_every_row_of_the_cases_is_right() -> None:
    fields = {"text_field": "message", "time_field": "ts", "key_field": "host"}
    made, rows = (
        decoder(input_format="json", **fields),
        (CASES / "time.jsonl").read_bytes().split(b"\n"),
    )
    times = [row for row in rows if row.startswith(b'{"host":"t-')]
    assert [decoded(made, row)[0][0].text for row in times] == ["a\n"] * 32
    others = [row for row in rows[:-1] if row not in times]
    for row, right in zip(others, ROWS, strict=True):
        if isinstance(right, str):
            with pytest.raises(BadEvent, match=right):
                decoded(made, row)
        else:
            chunks, reason = decoded(made, row)
            assert [(c.stream, c.text) for c in chunks] == [(s, f"{t}\n") for s, t in right]
            assert not reason


def test_bytes_that_are_no_utf8_are_replaced_where_the_settings_say_so() -> None:
    row = (CASES / "time.jsonl").read_bytes().splitlines()[-1]
    ((_, text, _),) = chunks(row, input_format="json", text_field="message", encoding="replace")
    assert text == "latin \N{REPLACEMENT CHARACTER}\n"


@given(st.integers(1, 1200))
def test_a_text_nested_as_deep_as_json_can_be_is_held_or_refused(levels: int) -> None:
    value = b'{"text":' + b"[" * levels + b"]" * levels + b"}"
    try:
        assert chunks(value, input_format="json") == [
            ("key", "[" * levels + "]" * levels + "\n", KAFKA_MS)
        ]
    except BadEvent as reason:
        assert "nested too deeply" in str(reason)
