"""Prefilter: candidates share a word with the question, and the process finds what the function
does. The process is safe to start anywhere, survives a crash and does not outlive its worker."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.scoring.bm25 import words
from stream_app.scoring.jobs import TrackedQuestion, TrackedStream
from stream_app.scoring.prefilter import (
    PREFILTER_SEGMENTS,
    Prefilter,
    PrefilterScheduler,
    best,
)
from stream_app.store.state import Commit, Cursor, QuestionRecord, ScoredRange
from stream_app.store.store import StreamStore
from tests.support.fakes import HashEngine, batch, until
from xl3m_core import Segment

LINES = [f"{word} {i} pump of hall {i % 7}\n" for i in range(60) for word in ("red", "blue")]
QUESTION = "Which pump of hall 3 is red?"
LOADED = "{'torch', 'transformers'} & __import__('sys').modules.keys()"
WORKER = """
import asyncio, os, sys
from stream_app.scoring.prefilter import Prefilter

async def main():
    prefilter = Prefilter(sys.argv[1])
    found = await prefilter.candidates(sys.argv[2], sys.argv[3], 5, 90, 10)
    print(len(found), await prefilter._process.run(os.getpid), flush=True)
    await asyncio.sleep(float(sys.argv[4]))

if __name__ == "__main__":
    asyncio.run(main())
"""


def segments(texts: Sequence[str]) -> list[Segment]:
    return [Segment(i, text, i, i + 1, 0, 1) for i, text in enumerate(texts)]


async def blocks(found: list[Segment], size: int) -> AsyncIterator[list[Segment]]:
    for start in range(0, len(found), size):
        yield found[start : start + size]


@pytest.fixture
async def log(redis_client: Redis, fresh: Callable[[str], str]) -> tuple[str, list[Segment]]:
    """A stream in Redis, and its segments."""
    stream, store = fresh("stream"), StreamStore(redis_client)
    tail, found = batch(HashEngine(), "".join(LINES))
    await store.commit([Commit(stream, await store.load(stream), found, tail, "t/0", 1, 1)])
    return stream, found


def worker(folder: Path, cwd: Path, *args: str) -> "subprocess.Popen[str]":
    """A process that searches a log, prints how much it found and the search's process id, and
    sleeps."""
    script = folder / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, str(script), *args]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    state = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return bool(state) and not state.startswith("Z")


@settings(deadline=None)  # the first example loads a library
@given(st.lists(st.text(max_size=30), max_size=9), st.text(max_size=30), st.integers(1, 5))
async def test_every_candidate_has_a_word_of_the_question(
    texts: list[str], question: str, size: int
) -> None:
    found = await best(blocks(segments(texts), size), question, 4)
    assert len(set(found)) == len(found) <= 4
    for index in found:
        assert set(words(texts[index])) & set(words(question))


async def test_the_best_come_first_whatever_the_size_of_blocks() -> None:
    target = LINES.index("red 59 pump of hall 3\n")
    for size in (7, 1000):
        found = await best(blocks(segments(LINES), size), "red 59", 5)
        assert found[0] == target


@pytest.mark.guarantee("Coverage")
async def test_the_process_finds_what_the_function_does(
    log: tuple[str, list[Segment]], redis_url: str
) -> None:
    stream, written = log
    found = await Prefilter(redis_url).candidates(stream, QUESTION, 5, 90, 10)
    assert found == await best(blocks(written[5:90], 1000), QUESTION, 10)
    assert len(found) == 10


@pytest.mark.guarantee("Coverage")
async def test_a_search_that_fails_finds_nothing_and_is_logged(
    caplog: pytest.LogCaptureFixture, fresh: Callable[[str], str]
) -> None:
    secret = "redis://user:hunter2@127.0.0.1:1/0"
    assert await Prefilter(secret).candidates(fresh("stream"), QUESTION, 0, 9, 3) == []
    assert "in the order of its log" in caplog.text and "hunter2" not in caplog.text


async def test_the_process_is_kept_at_a_low_priority_and_loads_no_model(
    log: tuple[str, list[Segment]], redis_url: str
) -> None:
    prefilter = Prefilter(redis_url)
    pid = await prefilter._process.run(os.getpid)
    assert await prefilter.candidates(log[0], QUESTION, 5, 90, 10)
    assert await prefilter._process.run(os.getpid) == pid != os.getpid()
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.nice(0) + 10)
    assert await prefilter._process.run(eval, LOADED) == set()


async def test_a_process_that_dies_is_started_again_and_that_is_logged(
    log: tuple[str, list[Segment]], redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    prefilter = Prefilter(redis_url)
    pid = await prefilter._process.run(os.getpid)
    os.kill(pid, signal.SIGKILL)
    assert len(await prefilter.candidates(log[0], QUESTION, 5, 90, 10)) == 10
    assert "the prefilter's process died" in caplog.text
    assert await prefilter._process.run(os.getpid) != pid


async def test_a_search_that_is_cancelled_ends_and_the_next_one_is_made(
    log: tuple[str, list[Segment]], redis_url: str, redis_client: Redis
) -> None:
    async def reads() -> int:
        stats = await redis_client.info("commandstats")
        return int(stats.get("cmdstat_xrange", {"calls": 0})["calls"])

    async def is_searching() -> bool:
        return await reads() > before + 100

    prefilter, endless, before = Prefilter(redis_url), 10**15, await reads()
    pid = await prefilter._process.run(os.getpid)
    search = asyncio.create_task(prefilter.candidates(log[0], QUESTION, 0, endless, 10))
    await until(is_searching)
    search.cancel()
    await until(lambda: not is_running(pid))
    with pytest.raises(asyncio.CancelledError):
        await search
    assert len(await prefilter.candidates(log[0], QUESTION, 5, 90, 10)) == 10


async def test_no_file_of_the_folder_it_is_started_in_is_run(
    log: tuple[str, list[Segment]], redis_url: str, tmp_path: Path
) -> None:
    folder, cwd = tmp_path / "bin", tmp_path / "cwd"
    folder.mkdir()
    cwd.mkdir()
    for module in (
        "bm25s", "redis", "stream_app", "numpy", "msgpack", "heapq",
        "multiprocessing", "pickle", "runpy", "signal", "socket", "threading",
    ):  # fmt: skip
        (cwd / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with worker(folder, cwd, redis_url, log[0], QUESTION, "0") as process:
        reply, _ = await asyncio.to_thread(process.communicate)
    assert reply.startswith("10 ")
    assert not (tmp_path / "ran").exists()


async def test_the_process_ends_with_a_worker_that_is_killed(
    log: tuple[str, list[Segment]], redis_url: str, tmp_path: Path
) -> None:
    with worker(tmp_path, tmp_path, redis_url, log[0], QUESTION, "600") as process:
        assert process.stdout is not None
        pid = int((await asyncio.to_thread(process.stdout.readline)).split()[1])
        assert is_running(pid)
        process.kill()
    await until(lambda: not is_running(pid))


class Endless:
    """A prefilter whose search ends when the test says so."""

    def __init__(self) -> None:
        self.searches, self.may_end = 0, asyncio.Event()

    async def candidates(
        self, stream: str, question: str, lo: int, hi: int, limit: int
    ) -> list[int]:
        """The first segment."""
        self.searches += 1
        await self.may_end.wait()
        return [lo]


async def test_a_query_that_leaves_does_not_end_the_search_another_one_waits_for() -> None:
    prefilter, head = Endless(), PREFILTER_SEGMENTS
    scheduler = PrefilterScheduler(cast(Prefilter, prefilter))
    question = TrackedQuestion("s", "q", QuestionRecord("q?"), ScoredRange(head, head))
    tracked = TrackedStream(Cursor(head=head), questions={"q": question})
    waiting = [asyncio.create_task(scheduler.find_candidates(tracked, "s", "q")) for _ in range(2)]
    await until(lambda: prefilter.searches)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    prefilter.may_end.set()
    await waiting[1]
    assert (prefilter.searches, list(question.candidates)) == (1, [0])
