"""Times: unambiguous forms are parsed, all others are None, and nothing raises."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import SettingsError
from stream_app.formats.lines import cri_pieces, line_rule, line_time, timed
from stream_app.formats.times import EPOCH, LATEST, parse_time

CASES = Path(__file__).parents[1] / "cases" / "time.jsonl"
AT = datetime(2026, 11, 30, 10, tzinfo=UTC)
NOW = int(AT.timestamp() * 1000)
SECONDS = 1_764_496_800
MS = SECONDS * 1000

RIGHT: dict[str, int | None] = {
    "t-iso-z": NOW + 123,
    "t-iso-off": NOW - 2 * 3_600_000,
    "t-iso-space": NOW + 123,
    "t-iso-naive": NOW,
    "t-date": NOW - 10 * 3_600_000,
    "t-sec": MS,
    "t-secf": MS + 123,
    "t-ms": MS + 123,
    "t-us": MS + 123,
    "t-ns": MS + 123,
    "t-str-sec": MS,
    "t-str-secf": MS + 123,
    "t-str-ms": MS + 123,
    "t-str-us": MS + 123,
    "t-str-ns": MS + 123,
    "t-rfc822": NOW,
    "t-clf": NOW,
    "t-syslog": NOW,
    "t-mongo": NOW,
    "t-leap": NOW + 14 * 3_600_000,
    "t-comma": NOW + 123,
} | dict.fromkeys(
    [
        *("t-null", "t-empty", "t-dash", "t-zero", "t-neg", "t-bool", "t-list", "t-future"),
        *("t-year1", "t-nan", "t-none"),
    ]
)


def cases() -> dict[str, Any]:
    rows = re.findall(r'^\{"host":"t-[^\n]*', CASES.read_text(errors="replace"), re.MULTILINE)
    return {fields["host"]: fields.get("ts") for fields in map(json.loads, rows)}


@pytest.mark.guarantee("Event formats")
def test_every_form_of_the_cases_is_held_to_its_right_value() -> None:
    assert {host: parse_time(value, NOW) for host, value in cases().items()} == RIGHT


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize(
    ("value", "after"),
    [
        ("2026-11-30T10:00:00.123 +0200", -7_200_000 + 123),
        ("2026-11-30 10:00:00 UTC", 0),
        ("2026-11-30T10:00:00.123Z[UTC]", 123),
        ("2026-11-30 10:00:00.123456789 +0000 UTC", 123),
        ("2026/11/30 10:00:00", 0),
        ("20261130T100000Z", 0),
        ("20261130100000", 0),
        ("20261130", -36_000_000),
        ("Mon Nov 30 10:00:00 2026", 0),
        ("Mon Nov 30 10:00:00 UTC 2026", 0),
        ("[30/Nov/2026:10:00:00 +0000]", 0),
        ("30-Nov-2026 10:00:00.500", 500),
        ("Mon, 30 Nov 26 10:00:00 GMT", 0),
        ("Mon, 30 Nov 2026 10:00:00 -0800", 8 * 3_600_000),
        ("Mon, 30 Nov 2026 10:00:00 +0000 (UTC)", 0),
        ("30 Nov 2026 10:00:00 EST", 5 * 3_600_000),
        ("Monday, November 30, 2026 10:00:00 AM", 0),
        ("Nov 30, 2026 10:00:00 PM", 12 * 3_600_000),
        ("11/30/2026 10:00:00", 0),
        ("30.11.2026 10:00:00", 0),
        ("E1130 10:00:00.250", 250),
        (" 2026-11-30T10:00:00Z\n", 0),
        (AT, 0),
        (AT.date(), -36_000_000),
        (msgpack.Timestamp(NOW // 1000, 5_000_000), 5),
        ({"$date": NOW}, 0),
        ({"$date": {"$numberLong": str(NOW)}}, 0),
        ({"seconds": NOW // 1000, "nanos": 123_456_789}, 123),
        ({"seconds": str(NOW // 1000)}, 0),
        ({"epochSecond": NOW // 1000, "nanoOfSecond": 123_456_789}, 123),
    ],
)
def test_forms_of_producers_are_read(value: Any, after: int) -> None:
    assert parse_time(value, NOW) == NOW + after


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize(
    "value",
    [
        "05/06/2026 10:00:00",  # in May, or in June
        "10:00:00",
        "2026",
        "10:00 2026",
        "Nov 2026 10:00",
        "30 Nov 2026 10:00:00 IST",  # Israel, India or Ireland
        "2026-11-30T25:00:00Z",
        "2026-13-30",
        "2026-11-30T10:00:00+99:00",
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59Z",
        "0000-00-00 00:00:00",
        "Feb 30 10:00:00",
        "at 2026 about 10:00 perhaps",
        "\N{ARABIC-INDIC DIGIT THREE}" * 10,
        "2026-11-30 " * 50,
        10**400,
        float("inf"),
        1e300,
        -0.0,
        b"2026-11-30",
        {},
        {"$date": None},
        {"$date": -5},
        {"$date": {"$date": 1}},
        {"seconds": "many", "nanos": 1},
        {"epochSecond": True},
        msgpack.Timestamp(0),
    ],
    ids=repr,
)
def test_what_means_no_time_or_several_is_none(value: Any) -> None:
    assert parse_time(value, NOW) is None


MOMENTS = st.integers(1, LATEST - 1)


@pytest.mark.guarantee("Event formats")
@given(MOMENTS)
def test_a_time_by_any_unit_or_iso_form_is_the_same(time_ms: int) -> None:
    moment = EPOCH + timedelta(milliseconds=time_ms)
    iso = moment.isoformat(timespec="milliseconds")
    assert parse_time(iso, 0) == time_ms
    assert parse_time(iso.replace("T", " ").replace(".", ",").replace("+00:00", "Z"), 0) == time_ms
    assert parse_time({"$date": time_ms}, 0) == time_ms
    if time_ms >= 10**11:
        assert parse_time(time_ms, 0) == parse_time(str(time_ms), 0) == time_ms
        assert parse_time(time_ms * 1000 + 999, 0) == parse_time(f"{time_ms * 1000}", 0) == time_ms
        assert parse_time(time_ms * 10**6 + 999, 0) == time_ms


@pytest.mark.guarantee("Event formats")
@given(st.datetimes(datetime(1972, 1, 1), datetime(2099, 12, 31)), st.integers(-150, 150))
def test_a_time_without_a_year_is_of_the_nearest(at: datetime, days: int) -> None:
    at = at.replace(tzinfo=UTC, microsecond=0)
    now_ms = int((at + timedelta(days=days)).timestamp() * 1000)
    assert parse_time(at.strftime("%b %d %H:%M:%S"), now_ms) == int(at.timestamp()) * 1000


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$date", "seconds", "nanos", "$numberLong"]), inner)
    ),
    max_leaves=5,
)
ALMOST = st.text(st.sampled_from("0123456789-:/., TZ+NovMonPMapr[]EUSC"), max_size=30)


@pytest.mark.guarantee("Event formats")
@given(ANYTHING | ALMOST | st.text(st.characters(), max_size=30), st.integers(0, LATEST))
def test_anything_is_a_time_within_bounds_or_none(value: Any, now_ms: int) -> None:
    found = parse_time(value, now_ms)
    assert found is None or 0 < found < LATEST


# -- the time of a line --------------------------------------------------------------------------

LINES = [
    ("2026-11-30T10:00:00.123Z INFO x", 123),
    ("2026-11-30 10:00:00,123 INFO [main] x", 123),
    ("<34>Nov 30 10:00:00 host su: x", 0),
    ("<34>1 2026-11-30T10:00:00.003Z host su - ID47 - x", 3),
    ('10.9.8.7 - kova [30/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200', 0),
    ("30/Nov/2026 10:00:00 x", 0),
    ("E1130 10:00:01.223456       1 pool.go:42] pool", 1223),
    (f"{NOW // 1000}.123 12 10.0.0.1 TCP_MISS", 123),
    (f"{NOW // 1000} x", 0),
    ("[Mon Nov 30 10:00:00.123456 2026] [error] x", 123),
    ("2026/11/30 10:00:00 [error] 12#0: x", 0),
    ("INFO 2026-11-30T10:00:00+02:00|x", -7_200_000),
    ("Mon, 30 Nov 2026 10:00:00 GMT x", 0),
    ("\tat com.acme.Foo(Foo.java:1)", None),
    (f"order {NOW // 1000} failed", None),
    (f"{NOW // 1000}: x", None),
    ("x" * 65 + " 2026-11-30 10:00:00", None),
    ("", None),
]


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize(("line", "after"), LINES)
def test_common_shapes_are_found_at_the_start_of_a_line(line: str, after: int | None) -> None:
    rule = line_rule("auto")
    assert rule
    assert line_time(line, rule, NOW) == (None if after is None else NOW + after)


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize(
    ("pattern", "line", "after"),
    [
        ("%d/%b/%Y:%T %z", "a [30/Nov/2026:11:00:00 +0100] b", 0),
        ("%b %e %H:%M:%S", "Nov 30 10:00:00 host", 0),
        ("%y%m%d %H%M%S", "261130 100000 148 INFO dfs", 0),
        ("%F %T.%f", "x 2026-11-30 10:00:00.25 y", 250),
        (r"at=(\S+)", f"x at={NOW // 1000}.5 y", 500),
        (r"^\S+ (\d+) ", f"- {NOW} 2026.11.30 node", 0),
        (r"at=(\S+)", "no time", None),
        ("%F", "no time", None),
        ("%m/%d", "99/99", None),
    ],
)
def test_a_pattern_says_where_the_time_stands(pattern: str, line: str, after: int | None) -> None:
    rule = line_rule(pattern)
    assert rule
    assert line_time(line, rule, NOW) == (None if after is None else NOW + after)


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize("pattern", ["(", "no group", "%q", "%H:%M", "x" * 2000, "100%"])
def test_a_pattern_that_cannot_work_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError, match="XL3M_TIME_FROM_LINE"):
        line_rule(pattern)


@pytest.mark.guarantee("Event formats")
@given(st.text(st.sampled_from("0123456789-:/., TZ+Nov[]E\n"), max_size=80), st.integers(0, LATEST))
def test_pieces_by_time_are_the_text(text: str, now_ms: int) -> None:
    rule = line_rule("auto")
    assert rule
    pieces = [*timed(text, rule, now_ms)]
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.time_ms is None or 0 < piece.time_ms < LATEST for piece in pieces)


@pytest.mark.guarantee("Event formats")
def test_a_line_without_a_time_has_that_of_the_one_before_it() -> None:
    rule = line_rule("auto")
    assert rule
    text = "2026-11-30 10:00:00 a\n\tat b\n2026-11-30 10:00:01 c\rd\ne"
    assert [*timed(text, rule, NOW)] == [
        ("2026-11-30 10:00:00 a\n\tat b\n", NOW),
        ("2026-11-30 10:00:01 c\rd\ne", NOW + 1000),
    ]


@pytest.mark.guarantee("Event formats")
def test_lines_of_a_container_runtime_lose_what_was_put_before_them() -> None:
    text = (
        "2026-11-30T10:00:00.123456789Z stdout P part one, \n"
        "2026-11-30T10:00:00.2+00:00 stdout F part two\n"
        "2026-11-30T10:00:00.3Z stderr F\n"
        "2026-11-30T10:00:00.4Z stderr P:tag x\r\n"
        "no such line"
    )
    assert [*cri_pieces(text, NOW)] == [
        ("part one, ", NOW + 123),
        ("part two\n", NOW + 200),
        ("\n", NOW + 300),
        ("x", NOW + 400),
        ("no such line\n", None),
    ]
