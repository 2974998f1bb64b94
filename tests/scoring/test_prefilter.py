"""Prefilter: a log that takes long to score is searched first, and the process finds what the
function does. The process is safe to start anywhere, survives a crash and does not outlive its
worker."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.scoring.jobs import TrackedQuestion, TrackedStream
from stream_app.scoring.prefilter import FIRST_BLOCK, Prefilter, PrefilterScheduler, blocks
from stream_app.scoring.search_ranking import SearchRanking, search_block
from stream_app.store.state import Commit, Cursor, QuestionRecord, ScoredRange
from stream_app.store.store import StreamStore
from tests.support.fakes import HashEngine, batch, until
from tests.support.searching import found_in
from xl3m_core import Segment

LINES = [f"{word} {i} pump of hall {i % 7}\n" for i in range(60) for word in ("red", "blue")]
QUESTION = "Which pump of hall 3 is red?"
LOADED = "{'torch', 'transformers'} & __import__('sys').modules.keys()"
WORKER = """
import asyncio, os, sys
from stream_app.scoring.prefilter import Prefilter

async def main():
    prefilter = Prefilter(sys.argv[1])
    async for found in prefilter.search(sys.argv[2], sys.argv[3], [range(5, 90)], 10):
        print(len(found.best()), await prefilter._process.run(os.getpid), flush=True)
    await asyncio.sleep(float(sys.argv[4]))

if __name__ == "__main__":
    asyncio.run(main())
"""


def segments(texts: Sequence[str]) -> list[Segment]:
    return [Segment(i, text, i, i + 1, 0, 1) for i, text in enumerate(texts)]


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


@pytest.mark.guarantee("Coverage")
async def test_the_process_finds_what_the_function_does(
    log: tuple[str, list[Segment]], redis_url: str
) -> None:
    stream, written = log
    found = await found_in(Prefilter(redis_url), stream, QUESTION, range(5, 90))
    ranking = SearchRanking(10)
    ranking.add(search_block(written[5:90], QUESTION, 10))
    assert found == ranking.best()
    assert len(found) == 10


@pytest.mark.guarantee("Coverage")
async def test_a_search_that_fails_finds_nothing_and_is_logged(
    caplog: pytest.LogCaptureFixture, fresh: Callable[[str], str]
) -> None:
    secret = "redis://user:hunter2@127.0.0.1:1/0"
    assert await found_in(Prefilter(secret), fresh("stream"), QUESTION, range(9)) == []
    assert "in the order of its log" in caplog.text and "hunter2" not in caplog.text


async def test_the_process_is_kept_at_a_low_priority_and_loads_no_model(
    log: tuple[str, list[Segment]], redis_url: str
) -> None:
    prefilter = Prefilter(redis_url)
    pid = await prefilter._process.run(os.getpid)
    assert await found_in(prefilter, log[0], QUESTION, range(5, 90))
    assert await prefilter._process.run(os.getpid) == pid != os.getpid()
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.nice(0) + 10)
    assert await prefilter._process.run(eval, LOADED) == set()


async def test_a_process_that_dies_is_started_again_and_that_is_logged(
    log: tuple[str, list[Segment]], redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    prefilter = Prefilter(redis_url)
    pid = await prefilter._process.run(os.getpid)
    os.kill(pid, signal.SIGKILL)
    assert len(await found_in(prefilter, log[0], QUESTION, range(5, 90))) == 10
    assert "the prefilter's process died" in caplog.text
    assert await prefilter._process.run(os.getpid) != pid


async def test_a_search_that_is_cancelled_ends_and_the_next_one_is_made(
    log: tuple[str, list[Segment]], redis_url: str, redis_client: Redis
) -> None:
    async def reads() -> int:
        stats = await redis_client.info("commandstats")
        return int(stats.get("cmdstat_xrange", {"calls": 0})["calls"])

    async def is_searching() -> bool:
        return await reads() > before + 10

    prefilter, endless, before = Prefilter(redis_url), range(10**15), await reads()
    pid = await prefilter._process.run(os.getpid)
    search = asyncio.create_task(found_in(prefilter, log[0], QUESTION, endless))
    await until(is_searching)
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search
    assert len(await found_in(prefilter, log[0], QUESTION, range(5, 90))) == 10
    at_end = await reads()
    assert len(await found_in(prefilter, log[0], QUESTION, range(5, 90))) == 10
    assert await reads() == at_end + 1
    assert await prefilter._process.run(os.getpid) == pid


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


@asynccontextmanager
async def scheduled(
    prefilter: object, tracked: TrackedStream, store: StreamStore, times: int = 1
) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Queries that wait for the question `q`, of a model that reads 1,000 tokens a second."""
    scheduler = PrefilterScheduler(cast(Prefilter, prefilter), store, 3, 100)
    waiting = [
        asyncio.create_task(scheduler.find_candidates(tracked, "s", "q")) for _ in range(times)
    ]
    yield waiting
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not scheduler._searches


class Slow:
    """A prefilter that finds the first segment, once the test says so."""

    def __init__(self) -> None:
        self.searches, self.may_end = 0, asyncio.Event()

    async def search(
        self, stream: str, question: str, parts: Sequence[range], most: int
    ) -> AsyncIterator[SearchRanking]:
        self.searches += 1
        await self.may_end.wait()
        ranking = SearchRanking(most)
        ranking.add(search_block(segments(["q"]), "q", most))
        yield ranking


def asked(head: int) -> tuple[TrackedStream, TrackedQuestion]:
    question = TrackedQuestion("s", "q", QuestionRecord("q?"), ScoredRange(head, head))
    return TrackedStream(Cursor(head=head), questions={"q": question}), question


async def test_a_query_that_leaves_does_not_end_the_search_another_one_waits_for(
    redis_client: Redis,
) -> None:
    prefilter, (tracked, question) = Slow(), asked(1000)
    async with scheduled(prefilter, tracked, StreamStore(redis_client), 2) as waiting:
        await until(lambda: prefilter.searches)
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        prefilter.may_end.set()
        await until(lambda: question.candidates)
        assert (prefilter.searches, question.candidates[0]) == (1, 0)


@pytest.mark.parametrize(("segments", "searches"), [(5, 0), (50, 1)])
async def test_a_log_is_searched_if_the_model_would_take_long(
    segments: int, searches: int, redis_client: Redis
) -> None:
    """50 segments of 100 tokens at 1,000 tokens a second."""
    prefilter, (tracked, _) = Slow(), asked(segments)
    async with scheduled(prefilter, tracked, StreamStore(redis_client)) as (waiting,):
        await until(lambda: waiting.done() or prefilter.searches)
        assert prefilter.searches == searches


@given(st.floats(1, 1e6), st.integers(1, 50))
def test_the_expected_time_follows_the_measured_speed(speed: float, steps: int) -> None:
    scheduler = PrefilterScheduler(None, cast(StreamStore, None), 3, 100)
    for _ in range(steps):
        scheduler.observe(1000, 1000 / speed)
        scheduler.observe(0, 1.0)
        scheduler.observe(1000, 0.0)
    assert scheduler.seconds(7) == pytest.approx(700 / speed)


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=3))
def test_blocks_are_the_parts_from_the_newest_on_and_the_first_one_is_small(
    sizes: list[int],
) -> None:
    parts = [range(100_000 * i, 100_000 * i + size) for i, size in enumerate(sizes)]
    found = [*blocks(parts)]
    assert [index for lo, hi in reversed(found) for index in range(lo, hi)] == [
        index for part in parts for index in part
    ]
    assert found[0][1] - found[0][0] <= FIRST_BLOCK
