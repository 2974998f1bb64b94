"""The watchdog ends a process that is stuck, and no other."""

import subprocess
import sys

PROGRAM = """
import asyncio, itertools, time
from stream_app.watchdog import Watchdog

steps = itertools.count()

async def main():
    watchdog = Watchdog(0.4, signs=lambda: {signs}, busy=lambda: {busy})
    async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        tasks.create_task(watchdog.run())
        await asyncio.sleep(0.1)
        {work}

try:
    asyncio.run(main())
except TimeoutError:
    print("lived")
"""


def outcome(signs: str, busy: str, work: str = "await asyncio.sleep(9)") -> tuple[int, str]:
    program = PROGRAM.format(signs=signs, busy=busy, work=work)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_work_that_gets_nowhere_ends_the_process_and_shows_where() -> None:
    code, output = outcome(signs="0", busy="True")
    assert code == 1
    assert "Timeout" in output and "lived" not in output


def test_a_stuck_event_loop_ends_the_process() -> None:
    code, output = outcome(signs="next(steps)", busy="True", work="time.sleep(9)")
    assert code == 1
    assert "File" in output and "lived" not in output


def test_progress_keeps_it_alive() -> None:
    assert outcome(signs="next(steps)", busy="True") == (0, "lived\n")


def test_having_nothing_to_do_keeps_it_alive() -> None:
    assert outcome(signs="0", busy="False") == (0, "lived\n")
