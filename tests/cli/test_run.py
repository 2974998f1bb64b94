"""`xl3m run`: the file's text is read once, as a stream would have it, from any readable source."""

import gzip
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import SettingsError
from stream_app.feeding import file_text
from stream_app.feeding.file_text import FileText
from stream_app.settings import Encoding
from tests.support import tiny
from tests.support.files import read_file
from xl3m_core import XL3M

CASES = Path(__file__).parents[1] / "cases"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model's folder."""
    folder = tmp_path_factory.mktemp("model")
    tiny.save(tiny.make("llama"), folder)
    return str(folder)


def run(model: str, command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`xl3m run` with these arguments, in a shell."""
    return subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m stream_app run {command} --model '{model}'"],
        env=os.environ | env, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def read(data: bytes, tmp: Path, encoding: Encoding = "strict") -> tuple[str, FileText]:
    (tmp / "log").write_bytes(data)
    text = FileText(tmp / "log", encoding)
    return "".join(text.chunks()), text


@given(st.text(st.sampled_from("ab\r\n\x85\u2028é☃\U0001f40d")), st.integers(1, 9))
def test_text_is_what_the_file_holds_in_any_chunks(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_text, "CHUNK_BYTES", size)
        patch.setattr(file_text, "LONGEST_LINE", size)
        patch.setattr(click, "open_file", lambda *_: io.BytesIO(text.encode()))
        for encoding in get_args(Encoding):
            found = FileText(Path("x"), encoding)
            assert "".join(found.chunks()) == text and not found.warning


@given(st.lists(st.sampled_from([b"ok", b"\xff", b"caf\xe9", b"\r", "é☃".encode(), b""])))
def test_lines_that_are_no_utf_8_are_left_out_or_replaced(lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    good = [line for line in lines if line not in (b"\xff", b"caf\xe9")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click, "open_file", lambda *_: io.BytesIO(data))
        strict, loose = FileText(Path("x"), "strict"), FileText(Path("x"), "replace")
        assert "".join(strict.chunks()) == b"".join(line + b"\n" for line in good).decode()
        assert "".join(loose.chunks()) == data.decode(errors="replace")
    assert strict.skipped_lines == len(lines) - len(good)
    wrong = [at for at in (data.find(b"\xff"), data.find(b"\xe9\n")) if at >= 0]
    if wrong:
        assert f"offset {min(wrong)}" in strict.warning
    assert bool(strict.warning) == bool(wrong) and not loose.warning


def test_a_line_without_end_takes_bounded_memory_and_loses_its_wrong_piece(tmp_path: Path) -> None:
    text, found = read("é".encode() * 200_000 + b"\xff", tmp_path)
    assert text == "é" * text.count("é") and text.count("é") > 150_000
    assert found.skipped_lines == 1 and found.bad_offset == 400_000


@pytest.mark.guarantee("Chunking")
def test_line_breaks_stay_and_offsets_are_the_files(model: str, tmp_path: Path) -> None:
    text = "".join(f"line {i} pump\r\n" for i in range(30)) + "10 %\r20 %\rdone\n"
    (tmp_path / "log").write_text(text, newline="")
    done = run(model, f"'{tmp_path}/log' -q a? --json")
    evidence = json.loads(done.stdout)["evidence"]
    assert any("\r" in each["text"] for each in evidence)
    for each in evidence:
        assert text[each["start"] : each["end"]] == each["text"]


@pytest.mark.guarantee("Chunking")
@pytest.mark.parametrize("kind", ["substitution", "fifo"])
def test_a_pipe_is_read_once_for_all_questions(kind: str, model: str, tmp_path: Path) -> None:
    log, options = CASES / "java.log", f"-q a? -q b? --json --model '{model}'"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    words = {
        "substitution": f"<(cat '{log}') {options}",
        "fifo": f"'{fifo}' {options} & cat '{log}' > '{fifo}'; wait; true",
    }
    done = run(model, words[kind])
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["question"] for answer in found] == ["a?", "b?"], done.stderr
    text = log.read_text()
    for each in (evidence for answer in found for evidence in answer["evidence"]):
        assert text[each["start"] : each["end"]] == each["text"]


def test_what_is_left_out_is_said_once_with_its_place(model: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"pump one\ncaf\xe9\npump two\n\xff\n")
    done = run(model, f"'{tmp_path}/log' -q a? -q b? --json")
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if "UTF-8" in line]
    assert len(said) == 1 and "2 lines were skipped" in said[0] and "offset 12" in said[0]
    assert {e["text"] for e in json.loads(done.stdout.splitlines()[0])["evidence"]} == {
        "pump one\npump two\n"
    }
    done = run(model, f"'{tmp_path}/log' -q a? --json", XL3M_ENCODING="replace")
    assert "caf\ufffd" in json.loads(done.stdout)["evidence"][0]["text"]
    assert "UTF-8" not in done.stderr


def test_the_rule_for_records_is_the_settings(model: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("#a\nbb\n#c\ndd\n#e\n")
    sizes = {"XL3M_SEGMENT_TOKENS": "9", "XL3M_OVERLAP_TOKENS": "0", "XL3M_K": "3"}
    texts = {}
    for rule in ("line", "^#"):
        done = run(model, f"'{tmp_path}/log' -q a? --json", XL3M_RECORD_START=rule, **sizes)
        texts[rule] = [each["text"] for each in json.loads(done.stdout)["evidence"]]
    assert texts["^#"] != texts["line"]
    assert all(text.startswith("#") for text in texts["^#"])


def test_questions_together_are_answered_as_alone() -> None:
    text = "".join(f"{i} pump seven is {'down' if i % 7 else 'up'}\n" for i in range(60))
    method, questions = XL3M(tiny.engine(tiny.model())), ["which pump?", "why is it down?"]
    together = [*method.answers(text, questions)]
    alone = [method.answer(text, question) for question in questions]
    for one, other in zip(together, alone, strict=True):
        assert (one.question, one.answer, one.grounded) == (
            other.question, other.answer, other.grounded
        )  # fmt: skip
        assert [(e.index, e.text) for e in one.evidence] == [
            (e.index, e.text) for e in other.evidence
        ]


@pytest.mark.guarantee("Feeding")
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
@given(
    text=st.text(st.sampled_from("ab\r\n\u0a0aé☃\U0001f40d"), min_size=1), size=st.integers(1, 9)
)
def test_text_behind_a_byte_order_mark_is_what_feed_sends(
    encoding: str, text: str, size: int
) -> None:
    data = ("\ufeff" + text).encode(encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_text, "CHUNK_BYTES", max(size, 4))
        patch.setattr(file_text, "LONGEST_LINE", size)
        patch.setattr(click, "open_file", lambda *_: io.BytesIO(data))
        found = FileText(Path("x"), "strict")
        assert "".join(found.chunks()) == text and not found.warning


async def fed(path: Path) -> str:
    return "".join([chunk async for chunk in read_file(path)])


@pytest.mark.guarantee("Feeding")
@pytest.mark.parametrize("name", ["old.log.gz", "u16.log", "java.log"])
async def test_a_file_is_read_as_feed_reads_it(name: str) -> None:
    assert "".join(FileText(CASES / name, "strict").chunks()) == await fed(CASES / name)


@pytest.mark.guarantee("Feeding")
def test_an_archive_through_a_pipe_and_a_transcript_are_answered_from(
    model: str, tmp_path: Path
) -> None:
    (tmp_path / "talk.vtt").write_text(
        "WEBVTT\n\n00:00:01.000 --> 00:00:03.000\n<v Anna>The pump is down.\n"
    )
    words = {
        f"<(cat '{CASES}/old.log.gz')": "hello disk full on web-3\n",
        f"- < '{CASES}/old.log.gz'": "hello disk full on web-3\n",
        f"'{tmp_path}/talk.vtt'": "00:00:01 Anna: The pump is down.\n",
    }
    for word, text in words.items():
        command = (
            f"{word} -q a? --json" if not word.startswith("-") else f"- -q a? --json {word[1:]}"
        )
        done = run(model, command)
        assert [e["text"] for e in json.loads(done.stdout)["evidence"]] == [text], done.stderr


@pytest.mark.guarantee("Feeding")
def test_what_can_be_read_of_a_damaged_archive_is_read_and_the_damage_said(tmp_path: Path) -> None:
    text, found = read(gzip.compress(b"one\n" * 999)[:-6], tmp_path)
    assert text == "one\n" * 999 and "truncated" in found.warning


@pytest.mark.guarantee("Feeding")
def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a PDF"):
        read(b"%PDF-1.7", tmp_path)


@pytest.mark.guarantee("Feeding")
def test_the_time_in_a_line_shows_in_the_evidence(model: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("2026-11-30T10:00:00Z pump\n  at x\n2026-11-30T10:00:05Z on\n")
    done = run(model, f"'{tmp_path}/log' -q a? --json", XL3M_TIME_FROM_LINE="auto")
    evidence = json.loads(done.stdout)["evidence"]
    first = datetime(2026, 11, 30, 10, tzinfo=UTC).timestamp() * 1000
    assert min(each["start_ms"] for each in evidence) == first
    assert max(each["end_ms"] for each in evidence) == first + 5000
