"""With XL3M_LOG_FORMAT=json every line of a worker's log is a JSON object, also a library's."""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import faust
import pytest
from redis.asyncio import Redis

from stream_app.embedded import services
from stream_app.kafka.faust_worker import Worker
from stream_app.runtime import logs
from stream_app.runtime.logs import JsonFormatter
from tests.cli.test_main import xl3m
from tests.support.workers import site
from tests.system.test_system import has_begun, log_text, says

Fresh = Callable[[str], str]
FIELDS = {"time", "level", "logger", "message"}
SECRET = "hunter2-and-more"


@pytest.mark.guarantee("Logs and metrics")
async def test_a_worker_writes_json_lines_only_and_no_password(
    broker: services.Service, tmp_path: Path, fresh: Fresh
) -> None:
    with services.redis(tmp_path / "r") as service:
        async with Redis.from_url(service.url) as redis:
            await redis.config_set("requirepass", SECRET)
        url = service.url.replace("redis://", f"redis://default:{SECRET}@")
        log, stream = tmp_path / "workers.log", fresh("stream")
        async with site(broker.url, url, tmp_path, fresh, log_format="json") as here:
            worker = await here.start("--loglevel", "debug")
            await here.send("tokens", stream, b"caf\xe9")
            await here.until(lambda: says(log, "not UTF-8"))
            await here.send("tokens", stream, log_text(1, 20).encode())
            await here.until(lambda: has_begun(here, stream))
            client: Any = here.redis
            await client.config_set("requirepass", "another")
            await client.client_kill_filter(_type="normal", skipme=True)
            await here.send("tokens", stream, b"more\n")
            await here.until(lambda: says(log, "waits for Redis"))
            await here.stop(worker, signal.SIGTERM)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(record.keys() >= FIELDS for record in records)
    assert all(datetime.fromisoformat(record["time"]) for record in records)
    loggers = {record["logger"].split(".")[0] for record in records}
    assert {"xl3m", "faust", "aiokafka", "mode"} <= loggers
    assert SECRET not in log.read_text()


@pytest.mark.guarantee("Logs and metrics")
def test_an_error_before_a_worker_starts_is_a_json_line() -> None:
    done = xl3m("worker", XL3M_LOG_FORMAT="json")
    assert done.returncode == 3
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert "Redis does not answer" in records[-1]["message"]


PROGRAM = """
import logging.config, sys, threading, warnings
from stream_app.runtime import logs
own = logging.getLogger("library")
own.propagate = False
own.addHandler(logging.StreamHandler())
logging.config.dictConfig(logs.json_config(logging.INFO))
logs.capture_all()
own.warning("of a library")
warnings.warn("beware")
logging.getLogger("odd").error("%d", "no number")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
class Odd:
    def __del__(self): raise ValueError("unraisable")
Odd()
raise RuntimeError("lines\\nof text")
"""


@pytest.mark.guarantee("Logs and metrics")
def test_what_python_itself_would_print_is_a_json_line() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1 and not done.stdout
    said = [(r["logger"], r["message"].split(":")[0], "exception" in r) for r in records]
    assert [(said[0]), *said[2:]] == [
        ("library", "of a library", False),
        ("odd", "%d ('no number',)", False),
        ("xl3m", "a thread ended", True),
        ("xl3m", "an error was dropped", True),
        ("xl3m", "the worker ended", True),
    ]
    assert "beware" in records[1]["message"]
    assert records[-1]["exception"].endswith("RuntimeError: lines\nof text")


@pytest.mark.parametrize("message", ["\ud800", "\0\n\r\u2028", "x" * 100_000, ""])
def test_any_text_is_one_line(message: str) -> None:
    record = logging.makeLogRecord({"msg": message})
    line = JsonFormatter().format(record)
    assert len(line.splitlines()) == 1 and line.isascii()
    assert json.loads(line)["message"] == message


@pytest.mark.guarantee("Logs and metrics")
@pytest.mark.parametrize("config", [None, logs.json_config(logging.INFO)])
def test_a_worker_throttles_what_a_library_repeats(
    config: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    try:
        worker = Worker(faust.App("x", broker="kafka://"), loglevel="info", logging_config=config)
        worker._setup_logging()
        for _ in range(1000):
            logging.getLogger("aiokafka.client").error("Unable connect to node with id %s", 1)
            logging.getLogger("xl3m").error("ours")
    finally:
        root.setLevel(level)
    printed = capfd.readouterr()
    lines = (printed.out + printed.err).splitlines()
    assert 0 < sum("Unable connect" in line for line in lines) < 10
    assert sum("ours" in line for line in lines) == 1000
