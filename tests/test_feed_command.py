"""`xl3m feed` as a process: one interrupt ends it, late files are fed, what it left out is said."""

import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stream_app.embedded import Service

NOWHERE = "redis://127.0.0.1:1"


def start(broker: Service, *words: str, **more: str) -> subprocess.Popen[str]:
    env = os.environ | {"XL3M_BROKER": broker.url, "XL3M_REDIS": NOWHERE} | more
    return subprocess.Popen(
        [sys.executable, "-m", "stream_app", "feed", *words], env=env, text=True,
        stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def wait_for(process: subprocess.Popen[str], word: str) -> str:
    """What it says, up to the line with the word."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if word in line:
            return said
    raise AssertionError(said)


def test_one_interrupt_ends_a_feed_of_an_open_pipe(durable_broker: Service, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    missing = str(tmp_path / "later.log")
    for name in ("-", str(tmp_path / "pipe")):
        with start(durable_broker, "-f", name, missing) as process:
            wait_for(process, "waiting for it")  # it is at work by then
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert process.stderr is not None and "Traceback" not in process.stderr.read()


def test_a_file_that_appears_in_a_followed_folder_is_fed_and_said_once(
    durable_broker: Service, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"\0\1")
    with start(durable_broker, "-f", str(folder)) as process:
        assert "NUL" in wait_for(process, "passed over")
        (folder / "new.log").write_text("one\n")
        assert "new.log is new" in wait_for(process, "is new")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


@pytest.mark.parametrize("data", [gzip.compress(b"one\n" * 99)[:-4], b"one\n"])
def test_what_could_not_be_read_shows_in_the_exit_code(
    data: bytes, durable_broker: Service, tmp_path: Path
) -> None:
    (tmp_path / "x.log.gz").write_bytes(data)
    with start(durable_broker, str(tmp_path / "x.log.gz")) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == (0 if data == b"one\n" else 1), said
    assert ("cut short" in said) == (data != b"one\n")
    assert "lines" in said and "/s)" in said
