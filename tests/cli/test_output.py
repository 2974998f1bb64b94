"""Output: printed text of a stream cannot control the terminal or forge a line."""

import ast
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.cli import display, doctor, main, run, streams, watch
from stream_app.cli.output import echo
from stream_app.errors import UnreachableError
from stream_app.runtime.escape import as_json, escape, escape_name, one_line, unescape_name
from stream_app.settings import Settings
from stream_app.store.state import Commit, QuestionRecord, State
from stream_app.store.store import StreamStore
from tests.support import tiny
from tests.support.fakes import HashEngine
from xl3m_core import Tail

Fresh = Callable[[str], str]
HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\r\b\x7f\u2028\u202eevil\u2066\u2069 \t ok"
BIDI = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
# Most texts get unsafe characters, which are rare among all characters.
UNSAFE = st.sampled_from([*map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)), *BIDI])
TEXTS = st.text(st.one_of(UNSAFE, st.characters(), st.characters(categories=["Cs"])))


def unsafe(text: str) -> set[str]:
    """Characters that no terminal should get, by their Unicode categories."""
    kinds = {"Cc", "Cs", "Zl", "Zp"}
    return {c for c in text if (unicodedata.category(c) in kinds and c != "\n") or c in BIDI}


@given(TEXTS)
def test_nothing_shown_commands_a_terminal(text: str) -> None:
    assert unsafe(escape(text)) == set()
    assert unsafe(one_line(text)) == set() and "\n" not in one_line(text)
    escape(text).encode()


@given(st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" \n")))
def test_what_is_safe_is_shown_as_it_is(text: str) -> None:
    assert escape(text) == text


@given(st.text(UNSAFE.filter(lambda c: c not in "\r\n\t"), min_size=1))
def test_every_unsafe_character_can_be_seen(text: str) -> None:
    assert escape(text).encode().decode("unicode_escape") == text


@given(
    TEXTS.filter(lambda name: "\\" not in name and not any("\ud800" <= c <= "\udfff" for c in name))
)
def test_a_name_is_meant_as_it_is_shown(name: str) -> None:
    assert unescape_name(escape_name(name)) == name
    assert unsafe(escape_name(name)) == set() and "\n" not in escape_name(name)


@pytest.mark.parametrize("text", [r"C:\new\xyz", r"\x41", r"\u0041", r"\ud800", r"\x4", "plain"])
def test_what_is_no_code_of_an_unsafe_character_is_meant_literally(text: str) -> None:
    assert unescape_name(text) == text


@given(st.dictionaries(TEXTS, st.one_of(TEXTS, st.lists(TEXTS), st.integers())))
def test_json_says_the_same_in_one_safe_line(fields: dict[str, Any]) -> None:
    line = as_json(fields)
    assert json.loads(line) == fields
    assert unsafe(line) == set() and "\n" not in line
    line.encode()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_an_output_without_a_letter_for_it_is_no_error(encoding: str, tmp_path: Path) -> None:
    tiny.save(tiny.make("llama"), tmp_path / "model")
    text = "caf\u00e9 \u6c17\u5727 \U0001f600 \u2026\n"
    (tmp_path / "log").write_text(text * 60, encoding="utf-8")
    words = [
        "run",
        str(tmp_path / "log"),
        "-q",
        "caf\u00e9 \u6c17?",
        "--model",
        str(tmp_path / "model"),
    ]
    for more in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "stream_app", *words, *more], capture_output=True, timeout=100,
            env=os.environ | {"PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.decode("utf-8"))
    assert answer["question"] == "caf\u00e9 \u6c17?"
    assert all(text.strip() in evidence["text"] for evidence in answer["evidence"])


def prints(source: str) -> bool:
    """Whether code prints past `output.echo`: by `print`, or by click's own functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("click"):
            if {alias.name for alias in node.names} & {"echo", "secho"}:
                return True
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("echo", "secho", "print"):
                return True
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("secho", "print"):
            return True
    return False


@pytest.mark.parametrize(
    "code",
    ["print(1)", "click.echo(1)", "import click as c; c.secho(1)", "from click import echo"],
)
def test_printing_past_the_output_is_seen(code: str) -> None:
    assert prints(code) and not prints("from stream_app.cli.output import echo; echo(1)")


def test_only_the_terminal_prints() -> None:
    for path in (Path(main.__file__).parent).glob("*.py"):
        assert path.name == "output.py" or not prints(path.read_text()), path


async def test_commands_print_no_text_as_it_is(
    redis_url: str, redis_client: Redis, fresh: Fresh, capsys: pytest.CaptureFixture[str]
) -> None:
    stream, question = fresh("s") + HOSTILE + "\nforged   7 segments", HOSTILE + "\n?"
    store, settings = StreamStore(redis_client), Settings(redis=redis_url)
    tail, segments = HashEngine().segmenter().push(Tail(), f"{HOSTILE}\r\n" * 5)
    await store.register_streams([(stream, "t/0")])
    await store.commit([Commit(stream, State(), segments, tail, "t/0", 1, 1)])
    await store.questions.ask(stream, "q", QuestionRecord(question))
    for plain in (False, True):
        await streams.streams(settings, as_json=plain)
        await watch._show(store, stream, None, as_json=plain)
    evidence = {"index": 1, "score": -0.5, "text": HOSTILE}
    display.show_segment(evidence)
    answer = {"certainty": 0.0, "coverage": 1.0, "as_of": {HOSTILE: 1}, "timings": {HOSTILE: 0.0}}
    display.show_answer(answer | {"evidence": [evidence]})
    display.show_answer({"error": HOSTILE})
    printed = capsys.readouterr()
    assert unsafe(printed.out + printed.err) == set()
    assert r"\x1b[2J" in printed.out and r"\x1b[2J" in printed.err
    assert not any(line.startswith(("forged", "?")) for line in printed.out.splitlines())
    as_json = [line for line in printed.out.splitlines() if line.startswith("{")]
    assert stream in {json.loads(line)["stream"] for line in as_json}


@pytest.mark.parametrize(
    "error", [click.UsageError(HOSTILE), UnreachableError(HOSTILE), OSError(HOSTILE)]
)
def test_errors_are_printed_no_other_way(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: Any) -> None:
        raise error

    monkeypatch.setattr(main, "cli", fails)
    with pytest.raises(SystemExit):
        main.main()
    printed = capsys.readouterr().err
    assert unsafe(printed) == set() and r"\x1b[2J" in printed


def test_a_file_and_a_doctor_command_no_terminal_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save(tiny.make("llama"), tmp_path / "model")
    log = tmp_path / "log"
    log.write_text(f"{HOSTILE}\n" * 40)
    settings = Settings(model=str(tmp_path / "model"))
    for plain in (False, True):
        run.run(settings, log, ("a\x1b?",), plain)
    found = doctor.Finding("FAIL", "x", HOSTILE)
    monkeypatch.setattr(doctor, "examine", lambda **_: iter([found]))
    assert not doctor.run()
    echo(HOSTILE, err=True)
    printed = capsys.readouterr()
    assert unsafe(printed.out + printed.err) <= {"\r"}, "progress goes back to the line's beginning"
    assert unsafe(printed.out) == set() and r"\x1b[2J" in printed.out
