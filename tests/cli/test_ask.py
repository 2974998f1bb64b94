"""`xl3m ask`: progress while the stream is scored for the question, and escaped stream names."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.cli import ask as ask_command
from stream_app.cli import progress as progress_module
from stream_app.client import client
from stream_app.runtime.escape import escape_name
from stream_app.settings import Settings
from stream_app.store.range_update import RangeResult, RangeUpdate
from stream_app.store.state import (
    Commit,
    QuestionRecord,
    ScoredRange,
    State,
)
from stream_app.store.store import StreamStore
from tests.support.fakes import HashEngine
from tests.support.rows import rows_of
from xl3m_core import Tail

Fresh = Callable[[str], str]
QUESTION = "which pump?"
BINARY = "\x00\x01\u2028\n"


@pytest.fixture
def store(redis_client: Redis) -> StreamStore:
    """A store without limits."""
    return StreamStore(redis_client)


async def half_read(store: StreamStore, stream: str) -> int:
    """A stream with half of its segments scored for the question; the number of those."""
    tail, segments = HashEngine().segmenter().push(Tail(), "pump\n" * 90)
    await store.register_streams([(stream, "t/0")])
    await store.commit([Commit(stream, State(), segments, tail, "t/0", 1, 1)])
    await store.questions.ask(stream, "q", QuestionRecord(QUESTION, expires_at=4e9))
    head, half = len(segments), len(segments) // 2
    rows = rows_of([-0.5] * (head - half))
    read = RangeUpdate(stream, "q", ScoredRange(head, head), half, head, [(half, rows)])
    assert [reply.result for reply in await store.extend_range([read], 3)] == [
        RangeResult.TOP_CHANGED
    ]
    return head - half


async def test_what_is_read_for_a_question_is_known(store: StreamStore, fresh: Fresh) -> None:
    stream = fresh("stream")
    scored = await half_read(store, stream)
    head = (await store.load(stream)).cursor.head
    assert await client.scored_segments(store, stream, QUESTION) == (scored, head)
    assert await client.scored_segments(store, stream, "another?") is None
    assert await client.scored_segments(store, stream, None) is None  # no standing question
    assert await client.scored_segments(store, fresh("stream"), QUESTION) is None


@pytest.mark.parametrize("wanted", [True, False])
async def test_progress_is_shown_until_the_answer_comes(
    wanted: bool,
    store: StreamStore,
    redis_url: str,
    fresh: Fresh,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = fresh("stream") + BINARY
    scored = await half_read(store, stream)
    looked, covered = asyncio.Event(), client.scored_segments

    async def look(*args: Any) -> Any:
        known = await covered(*args)
        looked.set()
        return known

    async def ask(_: Any, name: str, *__: Any, **___: Any) -> AsyncIterator[dict[str, Any]]:
        assert name == stream
        if wanted:
            await looked.wait()
            await asyncio.sleep(0)
        yield {"type": "text", "text": "17"}
        yield {"type": "answer", "error": "enough"}

    monkeypatch.setattr(progress_module, "POLLED_SECONDS", 0.0)
    monkeypatch.setattr(client, "scored_segments", look)
    monkeypatch.setattr(client, "ask", ask)
    settings = Settings(redis=redis_url)
    assert not await ask_command.ask(settings, escape_name(stream), QUESTION, False, wanted)
    printed = capsys.readouterr()
    assert (f": {scored} of {2 * scored} segments" in printed.err) == wanted
    assert printed.out == "17"


@pytest.mark.parametrize("as_json", [True, False])
async def test_early_answers_go_to_standard_error_and_the_answer_to_standard_output(
    as_json: bool,
    redis_url: str,
    fresh: Fresh,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def ask(*_: Any, early: bool) -> AsyncIterator[dict[str, Any]]:
        assert early == (not as_json)
        if early:
            yield {"type": "revision_text", "revision": 1, "piece": "8"}
            yield {"type": "revision", "revision": 1, "answer": "8\x1b1", "coverage": 0.04}
        yield {"type": "text", "text": "17"}
        yield {"type": "answer", "error": "enough"}

    monkeypatch.setattr(client, "ask", ask)
    settings = Settings(redis=redis_url)
    assert not await ask_command.ask(settings, fresh("stream"), QUESTION, as_json)
    printed = capsys.readouterr()
    if as_json:
        assert json.loads(printed.out) == {"error": "enough"}
        assert not printed.err
    else:
        assert printed.out == "17"
        assert printed.err.startswith("so far, from 4% of the stream: 8\\x1b1\n")


async def test_a_name_is_taken_literally_if_there_is_such_a_stream(
    store: StreamStore, fresh: Fresh
) -> None:
    stream = fresh("stream") + BINARY
    shown = escape_name(stream)
    assert await client.resolve(store, shown) == shown  # no such stream
    await store.register_streams([(stream, "t/0")])
    assert await client.resolve(store, shown) == stream
    await store.register_streams([(shown, "t/0")])
    assert await client.resolve(store, shown) == shown
    assert await client.resolve(store, "plain") == "plain"
