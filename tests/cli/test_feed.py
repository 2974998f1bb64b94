"""`xl3m feed` as a process: a signal ends it, late files are fed, what it skipped is reported."""

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stream_app.embedded.services import Service
from stream_app.settings import Settings
from tests.feeding.test_faults import Feed

NOWHERE = "redis://127.0.0.1:1"


@contextmanager
def start(
    broker: Service, *words: str, ignored: tuple[signal.Signals, ...] = (), **more: str
) -> Iterator[subprocess.Popen[str]]:
    """`xl3m feed` as a process, which a failed test kills."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    env = os.environ | {"XL3M_BROKER": broker.url, "XL3M_REDIS": NOWHERE} | more
    with subprocess.Popen(
        [sys.executable, "-m", "stream_app", "feed", *words], env=env, text=True,
        stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=prepare,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], word: str) -> str:
    """Its output, up to the line with the word."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if word in line:
            return said
    raise AssertionError(said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_ends_a_feed_of_an_open_pipe(
    number: signal.Signals, durable_broker: Service, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    missing = str(tmp_path / "later.log")
    for name in ("-", str(tmp_path / "pipe")):
        with start(durable_broker, "-f", name, missing) as process:
            wait_for(process, "waiting for it")  # by then it runs
            process.send_signal(number)
            assert process.wait(60) == 128 + number
            assert process.stderr is not None and "Traceback" not in process.stderr.read()


def until(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for a condition while the process runs."""
    end = time.monotonic() + 60
    while not is_so():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)


def positions(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {"files": [], "clean": None}


def noted(path: Path) -> int:
    """The number of bytes that Kafka has, by the checkpoint file."""
    return sum(each["sent"] for each in positions(path)["files"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_feed_as_an_interrupt_does_with_all_noted(
    number: signal.Signals, durable_broker: Service, tmp_path: Path, fresh: Callable[[str], str]
) -> None:
    log, book = tmp_path / "app.log", tmp_path / "positions.json"
    log.write_text("one\n")
    words = ["-f", str(log), "--positions", str(book)]
    topic = fresh("tokens")
    with start(durable_broker, *words, XL3M_TOKENS_TOPIC=topic) as process:
        until(lambda: noted(book) == 4, process)  # also without new text
        with log.open("a") as file:
            file.write("two\n")
        until(lambda: noted(book) == 8, process)
        assert positions(book)["clean"] is False
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "app.log: 2 lines, 8 bytes in 2 events" in said and "Traceback" not in said
    assert positions(book)["clean"] is True and noted(book) == 8
    assert sum(positions(book)["next"].values()) == 2  # each once


def test_what_is_on_its_way_when_a_signal_comes_is_confirmed_and_noted(
    durable_broker: Service, tmp_path: Path, fresh: Callable[[str], str]
) -> None:
    log, book = tmp_path / "app.log", tmp_path / "positions.json"
    log.write_text("".join(f"{i} {'x' * 100}\n" for i in range(200_000)))
    words = ["-f", str(log), "--positions", str(book)]
    topic = fresh("tokens")
    with start(durable_broker, *words, XL3M_TOKENS_TOPIC=topic) as process:
        until(lambda: noted(book) > 0, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert positions(book)["clean"] is True, said
    settings = Settings(broker=durable_broker.url, tokens_topic=topic)
    lines = asyncio.run(Feed(settings, tmp_path).lines())
    assert lines == log.read_bytes()[: noted(book)].decode().splitlines()


def test_a_hangup_that_is_ignored_as_under_nohup_ends_nothing(
    durable_broker: Service, tmp_path: Path, fresh: Callable[[str], str]
) -> None:
    log, book = tmp_path / "app.log", tmp_path / "positions.json"
    log.write_text("one\n")
    words = ["-f", str(log), "--positions", str(book)]
    topic, ignored = fresh("tokens"), (signal.SIGHUP,)
    with start(durable_broker, *words, ignored=ignored, XL3M_TOKENS_TOPIC=topic) as process:
        until(lambda: noted(book) == 4, process)
        process.send_signal(signal.SIGHUP)
        with log.open("a") as file:
            file.write("two\n")
        until(lambda: noted(book) == 8, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143


def test_from_the_end_needs_following(durable_broker: Service, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\n")
    with start(durable_broker, "--from-end", str(tmp_path / "log")) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "--from-end needs -f" in said


def test_a_file_that_appears_in_a_followed_folder_is_fed_and_said_once(
    durable_broker: Service, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"\0\1")
    with start(durable_broker, "-f", str(folder)) as process:
        assert "NUL" in wait_for(process, "is skipped")
        (folder / "new.log").write_text("one\n")
        assert "new.log is new" in wait_for(process, "is new")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


@pytest.mark.guarantee("Feeding")
@pytest.mark.parametrize("data", [gzip.compress(b"one\n" * 99)[:-4], b"one\n"])
def test_what_could_not_be_read_shows_in_the_exit_code(
    data: bytes, durable_broker: Service, tmp_path: Path
) -> None:
    (tmp_path / "x.log.gz").write_bytes(data)
    with start(durable_broker, str(tmp_path / "x.log.gz")) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == (0 if data == b"one\n" else 1), said
    assert ("truncated" in said) == (data != b"one\n")
    assert ("1 line, 4 bytes" if data == b"one\n" else "lines") in said and "/s)" in said
