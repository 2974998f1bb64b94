"""Odd arguments and odd files on the command line: a one-line message that says what to do, the
documented exit code, and no traceback; or the text of any kind of file.
"""

import ctypes
import os
import socket
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from stream_app.embedded.services import Service
from stream_app.feeding import chunking, discovery, open_file, tailer
from stream_app.settings.variables import variable
from tests.support.files import read_file

NOWHERE = {"XL3M_REDIS": "redis://127.0.0.1:1", "XL3M_BROKER": "kafka://127.0.0.1:1"}
LINES_OF_CLICK = 3  # "Usage: …", "Try …", and their continuation


def xl3m(*words: str | bytes, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream_app", *words], env=os.environ | NOWHERE | env,
        capture_output=True, text=True, errors="replace", timeout=100, stdin=subprocess.DEVNULL,
        preexec_fn=_as_anybody,
    )  # fmt: skip


def _as_anybody() -> None:
    """Drop root's right to read files without permission, if the system has such rights."""
    if sys.platform == "linux":
        for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP


def assert_one_mistake(done: subprocess.CompletedProcess[str], named: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line and "Loading weights" not in line]
    assert len(said) == 1 or (said[0].startswith("Usage") and len(said) <= LINES_OF_CLICK), said
    assert named in said[-1]


@pytest.mark.guarantee("Feeding")
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("ask", b"\xff", "q?"), "UTF-8"),
        (("ask", "s", b"caf\xe9?"), "UTF-8"),
        (("ask", "x" * 257, "q?"), "257 bytes, more than the 256"),
        (("ask", "", "q?"), "no stream"),
        (("ask", "s", "q?", "--deadline", "nan"), "XL3M_QUERY_DEADLINE_SECONDS"),
        (("ask", "s", "q?", "--deadline", "-1"), "XL3M_QUERY_DEADLINE_SECONDS"),
        (("ask", "s", "q?", "--deadline", "1e999"), "XL3M_QUERY_DEADLINE_SECONDS"),
        (("ask", "s", "q?", "--deadline", "9" * 400), "XL3M_QUERY_DEADLINE_SECONDS"),
        (("ask", "s", "q?", "--deadline", "soon"), "--deadline"),
        (("watch", "s", "-q", b"\xff"), "UTF-8"),
        (("watch", "é" * 129), "258 bytes, more than the 256"),
        (("feed", __file__, "--stream", b"\xff"), "UTF-8"),
        (("feed", __file__, "--stream", "x" * 257), "257 bytes, more than the 256"),
        (("feed", "/dev/null/x"), "/dev/null/x"),
        (("run", __file__, "-q", b"\xff"), "UTF-8"),
        (("demo", "--lines", "-5"), "--lines"),
        (("demo", "--model", "/no/model.gguf"), "/no/model.gguf"),
        (("run", __file__, "-q", "q?", "--model", f"{Path(__file__).parent}:no.gguf"), "no.gguf"),
        (("worker", "--loglevel", "nonsense"), "--loglevel"),
        (("worker", "--redis", "redis://127.0.0.1:1/0?what=ever"), "XL3M_REDIS"),
        (("worker", "--redis", "redis://127.0.0.1:1/0?socket_timeout=soon"), "XL3M_REDIS"),
        (("worker", "--broker", "kafka://127.0.0.1:port"), "XL3M_BROKER"),
        (("worker", "--group", b"\xff"), "XL3M_GROUP"),
    ],
)  # fmt: skip
def test_odd_words_are_one_line_and_code_2(words: tuple[str | bytes, ...], named: str) -> None:
    assert_one_mistake(xl3m(*words), named)


@pytest.mark.guarantee("Feeding")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dead_letters_topic", "xl3m.tokens"), ("tokens_topic", "a topic"), ("queries_topic", ".."),
        ("answers_topic", "x" * 250), ("k", "1" + "0" * 400), ("retention_bytes", str(2**53)),
    ],
)  # fmt: skip
def test_odd_settings_are_one_line_and_code_2(name: str, text: str) -> None:
    assert_one_mistake(xl3m("streams", **{variable(name): text}), variable(name))


@pytest.mark.guarantee("Feeding")
def test_a_question_as_long_as_a_shell_can_pass_on_is_refused_with_the_numbers(
    tmp_path: Path,
) -> None:
    done = xl3m("run", __file__, "-q", "long " * 20_000)
    assert_one_mistake(done, "tokens with its template, and the method leaves it")


@pytest.mark.guarantee("Feeding")
def test_what_cannot_be_read_is_named_without_a_traceback(
    tmp_path: Path, redis_url: str, broker: Service
) -> None:
    here = {"XL3M_REDIS": redis_url, "XL3M_BROKER": broker.url}
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
    (tmp_path / "secret").write_text("x\n")
    (tmp_path / "secret").chmod(0)
    for name in ("socket", "secret"):
        done = xl3m("feed", str(tmp_path / name), **here)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        assert name in done.stderr.splitlines()[-1]  # after the message about what was fed so far
    (tmp_path / "nothing").mkdir()
    assert_one_mistake(xl3m("feed", str(tmp_path / "nothing"), **here), "no file in")
    assert_one_mistake(xl3m("run", str(tmp_path / "nothing"), "-q", "q?"), "nothing")


@pytest.mark.guarantee("Feeding")
async def test_a_pipe_is_read_to_its_end_also_when_it_is_followed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"one\n\xff\0two\n" * 9000,))
    writer.start()
    text = "".join([chunk async for chunk in read_file(pipe)])
    writer.join()
    assert text == "one\n\N{REPLACEMENT CHARACTER}\0two\n" * 9000
    writer = threading.Thread(target=pipe.write_text, args=("one\ntwo",))
    writer.start()
    chunks = read_file(pipe, follow=True)
    assert await anext(chunks) == "one\n"
    writer.join()
    again = threading.Thread(target=pipe.write_text, args=(" and more\n",))
    again.start()
    assert await anext(chunks) == "two and more\n"
    again.join()


@pytest.mark.guarantee("Feeding")
async def test_what_turns_out_to_be_no_text_far_inside_is_text_with_marks(tmp_path: Path) -> None:
    data = b"text\n" * 4000 + bytes(range(256)) * 1000 + b"caf\xc3"
    (tmp_path / "binary").write_bytes(data)
    text = "".join([chunk async for chunk in read_file(tmp_path / "binary")])
    assert text == data.decode(errors="replace")


@pytest.mark.guarantee("Feeding")
async def test_ten_megabytes_without_a_newline_are_read_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "line").write_bytes(b"x" * 10_000_000)
    tracemalloc.start()
    try:
        sizes = [len(chunk) async for chunk in read_file(tmp_path / "line")]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(sizes) == 10_000_000
    assert max(sizes) <= chunking.MAX_RECORD_BYTES + open_file.CHUNK_BYTES
    assert peak < 2_000_000


@pytest.mark.guarantee("Feeding")
async def test_a_followed_file_that_vanishes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailer, "FOLLOW_SECONDS", 0.001)
    file = tmp_path / "log"
    file.write_text("one\n")
    chunks = read_file(file, follow=True)
    assert await anext(chunks) == "one\n"
    file.unlink()
    back = threading.Timer(0.05, file.write_text, ("two\n",))
    back.start()
    assert await anext(chunks) == "two\n"
    back.join()


@pytest.mark.guarantee("Feeding")
def test_a_file_may_be_called_by_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 {x} \n")
    (tmp_path / name).write_text("x\n")
    for named in (tmp_path, tmp_path / name):
        (found,) = discovery.discover([str(named)], follow=False).sources
        assert (found.stream, found.path) == (
            "caf\N{REPLACEMENT CHARACTER} {x} \n", tmp_path / name
        )  # fmt: skip
