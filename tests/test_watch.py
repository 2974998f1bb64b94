"""`xl3m watch`: it ends by a refusal of its own question, and by nobody else's."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable

import click
import pytest
from redis.asyncio import Redis

from stream_app import commands, keys
from stream_app.errors import BadEvent
from stream_app.events import encode
from stream_app.settings import Settings
from stream_app.state import Asked, Commit, Extension, Range, State
from stream_app.store import StreamStore
from tests.fakes import PLENTY, HashEngine
from xl3m_core import Tail

Fresh = Callable[[str], str]


@pytest.fixture
async def listening(redis_client: Redis) -> AsyncIterator[None]:
    """Somebody hears queries, as a worker would."""
    async with redis_client.pubsub() as pubsub:
        await pubsub.subscribe(keys.QUERY_CHANNEL)
        yield


async def refuse(redis: Redis, stream: str, question: str) -> None:
    refusal = {"stream": stream, "question": question, "error": f"no {question}"}
    await redis.publish(keys.update_channel(stream), encode(refusal))


@pytest.mark.usefixtures("listening")
async def test_another_ones_refusal_does_not_end_it(
    listening: None,
    redis_client: Redis,
    redis_url: str,
    fresh: Fresh,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = fresh("stream")

    async def set_question(settings: Settings, stream: str, question: str) -> None:
        assert question == "mine?"
        for refused in ("theirs?", "mine?", "never seen"):
            await refuse(redis_client, stream, refused)

    monkeypatch.setattr(commands, "set_question", set_question)
    with pytest.raises(click.UsageError, match=r"^no mine\?$"):
        async with asyncio.timeout(20):
            await commands.watch(Settings(redis=redis_url), stream, " mine? ", as_json=False)


@pytest.mark.usefixtures("listening")
async def test_what_is_known_for_a_question_is_shown_at_once(
    redis_client: Redis,
    redis_url: str,
    fresh: Fresh,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream, store = fresh("stream"), StreamStore(redis_client, PLENTY, PLENTY)
    tail, segments = HashEngine().segmenter().push(Tail(), "line\n" * 9)
    await store.commit([Commit(stream, State(), segments, tail, "t/0", 1, 1)])
    await store.ask(stream, "q", Asked("mine?"))
    head, best = len(segments), [(segments[0], -0.5)]
    scores = array("f", [-0.5] * head).tobytes()
    await store.extend([Extension(stream, "q", Range(head, head), 0, head, 0, scores, best)], 3)

    async def set_question(settings: Settings, stream: str, question: str) -> None:
        """It stands already: nothing changes, and nobody tells."""

    monkeypatch.setattr(commands, "set_question", set_question)
    watching = asyncio.create_task(
        commands.watch(Settings(redis=redis_url), stream, "mine?", as_json=False)
    )
    printed = ""
    async with asyncio.timeout(20):
        while "#0" not in printed:
            assert not watching.done(), watching.result()
            await asyncio.sleep(0.01)
            printed += capsys.readouterr().out
    watching.cancel()
    assert f"scored [0, {head}) of {head}" in printed


@pytest.mark.parametrize("question", ["   ", "?" * 65_537])
async def test_what_may_not_be_asked_is_refused_at_once(question: str, redis_url: str) -> None:
    with pytest.raises(BadEvent, match="question"):
        await commands.watch(Settings(redis=redis_url), "s", question, as_json=False)
