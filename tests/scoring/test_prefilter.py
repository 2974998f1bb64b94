"""Scout: what it names has the question's words, and the process gives what the function does."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.scoring.bm25 import words
from stream_app.scoring.prefilter import Prefilter, best
from stream_app.store.state import Commit
from stream_app.store.store import StreamStore
from tests.support.fakes import PLENTY, HashEngine, batch
from xl3m_core import Segment

LINES = [f"{word} {i} pump of hall {i % 7}\n" for i in range(60) for word in ("red", "blue")]
QUESTION = "Which pump of hall 3 is red?"


def segments(texts: Sequence[str]) -> list[Segment]:
    return [Segment(i, text, i, i + 1, 0, 1) for i, text in enumerate(texts)]


async def blocks(found: list[Segment], size: int) -> AsyncIterator[list[Segment]]:
    for start in range(0, len(found), size):
        yield found[start : start + size]


@settings(deadline=None)  # the first of all loads a library
@given(st.lists(st.text(max_size=30), max_size=9), st.text(max_size=30), st.integers(1, 5))
async def test_whatever_the_texts_what_is_named_has_a_word_of_the_question(
    texts: list[str], question: str, size: int
) -> None:
    named = await best(blocks(segments(texts), size), question, 4)
    assert len(set(named)) == len(named) <= 4
    for index in named:
        assert set(words(texts[index])) & set(words(question))


async def test_the_best_come_first_whatever_the_blocks() -> None:
    target = LINES.index("red 59 pump of hall 3\n")
    for size in (7, 1000):
        named = await best(blocks(segments(LINES), size), "red 59", 5)
        assert named[0] == target


@pytest.mark.guarantee("Coverage")
async def test_a_process_of_its_own_names_the_same(
    redis_client: Redis, redis_url: str, fresh: Callable[[str], str]
) -> None:
    stream, store, engine = fresh("stream"), StreamStore(redis_client, PLENTY, PLENTY), HashEngine()
    tail, found = batch(engine, "".join(LINES))
    await store.commit([Commit(stream, await store.load(stream), found, tail, "t/0", 1, 1)])
    named = await Prefilter(redis_url).candidates(stream, QUESTION, 5, 90, 10)
    assert named == await best(blocks(found[5:90], 1000), QUESTION, 10)
    assert len(named) == 10


@pytest.mark.guarantee("Coverage")
async def test_a_scout_that_fails_names_nothing_and_says_so(
    caplog: pytest.LogCaptureFixture, fresh: Callable[[str], str]
) -> None:
    secret = "redis://user:hunter2@127.0.0.1:1/0"
    assert await Prefilter(secret).candidates(fresh("stream"), QUESTION, 0, 9, 3) == []
    assert "scored as it lies" in caplog.text and "hunter2" not in caplog.text


async def test_no_file_of_the_folder_it_is_started_in_is_run(
    redis_client: Redis,
    redis_url: str,
    fresh: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, store, engine = fresh("stream"), StreamStore(redis_client, PLENTY, PLENTY), HashEngine()
    tail, found = batch(engine, "".join(LINES))
    await store.commit([Commit(stream, await store.load(stream), found, tail, "t/0", 1, 1)])
    for module in ("bm25s", "redis", "stream_app", "numpy", "msgpack", "heapq"):
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    assert len(await Prefilter(redis_url).candidates(stream, QUESTION, 5, 90, 10)) == 10
    assert not (tmp_path / "ran").exists()
