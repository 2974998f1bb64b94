"""The watchdog ends a process that makes no progress, but not an idle one."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stream_app.client import client
from stream_app.embedded.services import Service
from tests.support.workers import Site, site

Fresh = Callable[[str], str]

PROGRAM = """
import asyncio, itertools, time
from stream_app.runtime.watchdog import Watchdog

steps = itertools.count()

async def main():
    watchdog = Watchdog(0.4, progress=lambda: {progress}, busy=lambda: {busy})
    async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        tasks.create_task(watchdog.run())
        await asyncio.sleep(0.1)
        {work}

try:
    asyncio.run(main())
except TimeoutError:
    print("lived")
"""


def outcome(progress: str, busy: str, work: str = "await asyncio.sleep(9)") -> tuple[int, str]:
    program = PROGRAM.format(progress=progress, busy=busy, work=work)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.guarantee("Watchdog")
def test_no_progress_ends_the_process_and_shows_where() -> None:
    code, output = outcome(progress="0", busy="True")
    assert code == 1
    assert "Timeout" in output and "lived" not in output
    said = output.index("lower XL3M_BATCH_TOKENS, or raise XL3M_WATCHDOG_SECONDS")
    assert said < output.index("Timeout") and output.count("XL3M_WATCHDOG_SECONDS") == 1


@pytest.mark.guarantee("Watchdog")
def test_a_stuck_event_loop_ends_the_process() -> None:
    code, output = outcome(progress="next(steps)", busy="True", work="time.sleep(9)")
    assert code == 1
    assert "File" in output and "lived" not in output
    assert "XL3M_WATCHDOG_SECONDS" in output


@pytest.mark.guarantee("Watchdog")
def test_progress_keeps_it_alive() -> None:
    assert outcome(progress="next(steps)", busy="True") == (0, "lived\n"), "and nothing is said"


@pytest.mark.guarantee("Watchdog")
def test_having_nothing_to_do_keeps_it_alive() -> None:
    assert outcome(progress="0", busy="False") == (0, "lived\n")


# -- of a real worker ------------------------------------------------------------------------

WORKER = """
import time
from stream_app.app import create_app
from stream_app.settings import Settings
from stream_app.kafka.faust_worker import Worker
from tests.support.fakes import HashEngine

class Slow(HashEngine):
    def features(self, pairs, measures=()):
        time.sleep({seconds})
        return super().features(pairs, measures)

engine = Slow()
Worker(create_app(Settings.from_env(), engine), loglevel="info").execute_from_commandline()
"""


async def start(here: Site, seconds: float) -> asyncio.subprocess.Process:
    """Start a worker whose model takes `seconds` for each step."""
    return await here.run(here.settings, "-c", WORKER.format(seconds=seconds))


async def fed(here: Site, stream: str, lines: int) -> None:
    await here.send("questions", stream, b"q?")
    await here.send("tokens", stream, "".join(f"line {i}\n" for i in range(lines)).encode())


@pytest.mark.guarantee("Watchdog")
async def test_a_worker_whose_model_is_stuck_ends_and_shows_where(
    broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    async with site(broker.url, redis_url, tmp_path, fresh, watchdog_seconds=4.0) as here:
        worker = await start(here, seconds=3600)
        await fed(here, fresh("stream"), 9)
        assert await asyncio.wait_for(worker.wait(), 60) == 1
        shown = (tmp_path / "workers.log").read_text()
        assert "Timeout" in shown and "in features" in shown


@pytest.mark.guarantee("Watchdog")
async def test_a_worker_that_is_slow_or_has_nothing_to_do_lives(
    broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    async with site(broker.url, redis_url, tmp_path, fresh, watchdog_seconds=4.0) as here:
        worker, stream = await start(here, seconds=1.0), fresh("stream")
        await fed(here, stream, 12)

        async def scored() -> bool:
            known = await client.describe(here.store, stream)
            return [q["coverage"] for q in known["questions"]] == [1.0]

        await here.until(scored)
        with pytest.raises(TimeoutError):  # with nothing to do for longer than the four seconds
            await asyncio.wait_for(worker.wait(), 6)
        assert await here.stop(worker) == 0
