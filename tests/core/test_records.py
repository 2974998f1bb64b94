"""Records of several lines: a trace stays with its log line, in any chunking, at any length."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import SettingsError
from stream_app.settings import Settings
from xl3m_core import MethodError
from xl3m_core.method import Method
from xl3m_core.records import EXAMINED_CHARS, record_start
from xl3m_core.segment import Segment, Tail
from xl3m_core.segmenter import Segmenter

CASES = Path(__file__).parents[1] / "cases"

PYTHON = """\
12:00:01 ERROR worker failed
Traceback (most recent call last):
  File "/srv/app/a.py", line 12, in run
    return self.step()
           ^^^^^^^^^^^
KeyError: 'host'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/app/b.py", line 3, in main
    raise ValueError("x") from error
requests.exceptions.ConnectionError: ('aborted', 104)
"""
GO = """\
panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48f0a6]

goroutine 1 [running]:
main.(*server).handle(0xc000012345, {0x4b2d60, 0x1})
\t/srv/main.go:17 +0x26
net/http.HandlerFunc.ServeHTTP(...)
\t/usr/lib/go/src/net/http/server.go:2122
main.main()
\t/srv/main.go:9 +0x1d
created by main.start in goroutine 7
\t/srv/main.go:30 +0x9a
"""
DOTNET = """\
fail: Orders[0] Unhandled exception.
System.InvalidOperationException: no order
 ---> System.Net.Http.HttpRequestException: refused
   at System.Net.Http.ConnectHelper.ConnectAsync(String host)
   --- End of inner exception stack trace ---
--- End of stack trace from previous location where exception was thrown ---
   at Orders.Place() in /src/Orders.cs:line 12
"""
NODE = """\
Error: connect ECONNREFUSED 127.0.0.1:5432
    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1555:16) {
  errno: -111,
  code: 'ECONNREFUSED'
}
"""
JSON = '{\n  "a": [\n    1,\n    2\n  ],\n  "b": {}\n}\n'
JAVA = "".join((CASES / "java.log").read_text().splitlines(keepends=True)[1:-1])
TRACES = [PYTHON, GO, DOTNET, NODE, JSON, JAVA]

PLAIN = st.sampled_from(
    ["10:00 up\n", "b\n", "2026-11-30 INFO x\n", "[main] y\n", "<13>Nov 1 z\n", "At noon\n"]
)
MORE = st.sampled_from(["\tat a.B.c(D.java:1)\n", "  x\n", "Caused by: e\n", "... 4 more\n", "\n"])
LINES = st.lists(st.one_of(PLAIN, MORE), max_size=60)


def bytes_of(texts: Sequence[str]) -> list[int]:
    """An exact and uneven counter: one token for each byte of UTF-8."""
    return [len(text.encode()) for text in texts]


def segments_of(segmenter: Segmenter, chunks: Sequence[str]) -> list[Segment]:
    tail, done = Tail(), list[Segment]()
    for chunk in chunks:
        tail, new = segmenter.push(tail, chunk)
        done += new
    return done + segmenter.flush(tail)


def grouped(lines: Sequence[str]) -> list[list[str]]:
    """The lines of each record, by a slow reference implementation."""
    begins, records = record_start("auto"), list[list[str]]()
    for line in lines:
        if begins(line) or not records:
            records.append([])
        records[-1].append(line)
    return records


@pytest.mark.parametrize("trace", TRACES, ids=["python", "go", "net", "node", "json", "java"])
def test_a_trace_is_one_record_whose_first_line_alone_begins_one(trace: str) -> None:
    begins = record_start("auto")
    first, *others = trace.splitlines(keepends=True)
    assert begins(first)
    assert [line for line in others if begins(line)] == []


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-30 10:00:02,000 INFO  [main] com.acme.Mailer - mail 17 sent",
        "Error: cannot open file",
        "error: disk full",
        "<alice> at noon?",
        "[12:00] ready",
        '{"a": 1}',
        'Exception in thread "main" java.lang.Error: x',
        "Attempt 3 failed",
        "close(7) = 0",
        "panic: oops",
        "kernel: Out of memory",
        "-- Logs begin at --",
        "# a heading",
        "- item",
        "(done)",
    ],
)
def test_lines_of_their_own_begin_records(line: str) -> None:
    assert record_start("auto")(line + "\n")


@pytest.mark.guarantee("Chunking")
def test_the_error_line_of_java_and_its_trace_are_never_apart() -> None:
    before, error, *_, after = (CASES / "java.log").read_text().splitlines(keepends=True)
    text = (CASES / "java.log").read_text()
    size = len(JAVA.encode())
    for room in range(size, size + 400, 7):
        texts = [s.text for s in segments_of(Segmenter(bytes_of, room, 60), list(text))]
        assert [JAVA in each for each in texts if error in each] == [True]
    assert "".join([before, JAVA, after]) == text
    assert len(segments_of(Segmenter(bytes_of, size), [text])) == 3


@pytest.mark.guarantee("Chunking")
@given(LINES, st.integers(1, 90), st.integers(0, 89))
def test_any_chunking_gives_the_same_segments(lines: list[str], size: int, overlap: int) -> None:
    segmenter, text = Segmenter(bytes_of, size, min(overlap, size - 1)), "".join(lines)
    whole = segments_of(segmenter, [text])
    assert segments_of(segmenter, list(text)) == whole
    assert segments_of(segmenter, lines) == whole


@pytest.mark.guarantee("Chunking")
@given(LINES, st.integers(20, 120), st.integers(0, 40))
def test_a_record_that_fits_is_never_cut_and_nothing_is_lost(
    lines: list[str], size: int, overlap: int
) -> None:
    segments = segments_of(Segmenter(bytes_of, size, min(overlap, size - 1)), lines)
    text, at = "".join(lines), 0
    for record in map("".join, grouped(lines)):
        end = at + len(record)
        if len(record.encode()) <= size:
            assert any(s.start <= at and end <= s.end for s in segments)
        at = end
    covered = 0
    for segment in segments:
        assert segment.text == text[segment.start : segment.end]
        assert segment.start <= covered < segment.end and segment.tokens <= size
        covered = segment.end
    assert covered == len(text)


@given(LINES, st.integers(20, 120))
def test_the_overlap_begins_with_a_record_unless_one_is_cut(lines: list[str], size: int) -> None:
    text, begins = "".join(lines), record_start("auto")
    for before, after in pairwise(segments_of(Segmenter(bytes_of, size, size // 2), lines)):
        assert before.end_token - after.start_token <= size // 2
        fresh = text[before.end : after.end].splitlines(keepends=True)[0]
        if after.start < before.end and begins(fresh):
            assert begins(after.text)


@pytest.mark.guarantee("Chunking")
@given(st.lists(PLAIN, max_size=60), st.integers(20, 120), st.integers(0, 40))
def test_plain_lines_are_cut_as_if_every_line_were_a_record(
    lines: list[str], size: int, overlap: int
) -> None:
    auto, line = (Segmenter(bytes_of, size, min(overlap, size - 1), r) for r in ("auto", "line"))
    assert segments_of(auto, lines) == segments_of(line, lines)


def test_an_indented_file_is_cut_between_its_lines_with_overlap() -> None:
    text = "".join(f"  - item {i:04}\n" for i in range(500))
    segments = segments_of(Segmenter(bytes_of, 160, 40), [text])
    assert all(segment.text.endswith("\n") for segment in segments)
    apart = [b.start_token - a.end_token for a, b in pairwise(segments)]
    assert set(apart) == {-28}, "two lines are overlap"
    assert len(segments) == len(segments_of(Segmenter(bytes_of, 160, 40, "line"), [text]))


@pytest.mark.guarantee("Chunking")
@pytest.mark.parametrize(
    "line", [" x\n", "\n", "#1 \n", "a" * 400 + "(\n", "a\n" * 300 + "b\n" + " \n" * 1500]
)
def test_the_rule_is_asked_a_bounded_number_of_times_a_line(line: str) -> None:
    asked = 0
    segmenter = Segmenter(bytes_of, 2000, 250)
    rule = segmenter.is_record_start

    def counted(text: str) -> bool:
        nonlocal asked
        asked += 1
        return rule(text)

    segmenter.is_record_start = counted
    text = line * (20_000 // line.count("\n"))
    segments_of(segmenter, [text])
    assert asked < 3 * text.count("\n")


def test_a_pattern_says_where_records_begin() -> None:
    begins = record_start(r"^\[\d+\]")
    assert begins("[1] a\n") and not begins("a [1]\n") and not begins("\n")
    segments = segments_of(Segmenter(bytes_of, 12, 0, r"^\[\d+\]"), ["[1] a\nb\n[2] c\nd\ne\n"])
    assert [segment.text for segment in segments] == ["[1] a\nb\n", "[2] c\nd\ne\n"]


def test_a_pattern_sees_the_start_of_a_line_only() -> None:
    assert not record_start("end")("x" * EXAMINED_CHARS + "end\n")


@pytest.mark.parametrize("rule", ["(", "a{2", "[z-a]", "*", "x*", "^", "(?<=a+)b", ""])
def test_what_is_no_pattern_is_refused_with_the_reason(rule: str) -> None:
    if rule == "a{2":  # valid in Python: a literal
        assert record_start(rule)("a{2")
        return
    with pytest.raises(ValueError, match=re.escape(repr(rule))):
        record_start(rule)
    with pytest.raises(MethodError, match="where a record begins"):
        Method.fit(512, records=rule)
    if not rule:  # an empty variable is one that is not set
        assert Settings.from_env({"XL3M_RECORD_START": rule}) == Settings()
        return
    with pytest.raises(SettingsError, match="XL3M_RECORD_START"):
        Settings.from_env({"XL3M_RECORD_START": rule})


def test_the_setting_reaches_the_method() -> None:
    assert Settings.from_env({}).method(512).records == "auto"
    assert Settings.from_env({"XL3M_RECORD_START": "^x"}).method(512).records == "^x"


@pytest.mark.guarantee("Chunking")
def test_a_record_has_the_time_of_its_first_line() -> None:
    segmenter = Segmenter(bytes_of, 12)
    tail, done = Tail(), list[Segment]()
    for time, line in enumerate(["aa\n", "  b\n", "  c\n", "dd\n", "ee\n", " f\n"], 1):
        tail, new = segmenter.push(tail, line, time)
        done += new
    found = [(s.text, s.start_ms, s.end_ms) for s in done + segmenter.flush(tail)]
    assert found == [("aa\n  b\n  c\n", 1, 1), ("dd\nee\n f\n", 4, 5)]


def test_times_go_on_in_a_text_that_never_begins_a_record() -> None:
    segmenter = Segmenter(bytes_of, 12)
    _, segments = segmenter.extend(Tail(), [("  x\n", time) for time in range(30)])
    assert [(s.start_ms, s.end_ms) for s in segments] == [(n, n) for n in range(0, 27, 3)]
