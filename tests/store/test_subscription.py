"""Subscriptions survive silence and lost connections, and report when messages may be missed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions
from redis.asyncio import Redis

from stream_app.client import client
from stream_app.embedded import services
from stream_app.events import decode, encode
from stream_app.store import subscription
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.store import StreamStore
from stream_app.store.subscription import follow, messages
from tests.support.fakes import running, until
from tests.support.pubsub import Worker, listening
from tests.system.test_key_prefix import filled

Fresh = Callable[[str], str]
SILENCE = 0.2


@pytest.fixture
def service(tmp_path: Path) -> Any:
    """A Redis for this test alone: all its clients can be dropped."""
    with services.redis(tmp_path) as made:
        yield made


@pytest.fixture
async def impatient(service: services.Service) -> AsyncIterator[Redis]:
    """A client with a short timeout for replies."""
    async with Redis.from_url(f"{service.url}?socket_timeout={SILENCE / 4}") as redis:
        yield redis


@pytest.fixture
async def other(service: services.Service) -> AsyncIterator[Any]:
    """A client that publishes, and drops the others."""
    async with Redis.from_url(service.url) as redis:
        yield redis


async def next_of(heard: Any) -> Any:
    """The next message."""
    return await asyncio.wait_for(anext(heard), 20)


@pytest.mark.guarantee("Pub/sub queries")
async def test_silence_does_not_end_a_subscription(impatient: Redis, other: Any) -> None:
    async with aclosing(messages(impatient, "a", "b")) as heard:
        assert await next_of(heard) is None
        hearing = asyncio.create_task(next_of(heard))
        done, _ = await asyncio.wait([hearing], timeout=SILENCE)  # real silence is what is tested
        assert not done
        await other.publish("a", b"x")
        assert (await hearing)["data"] == b"x"


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_reconnect_is_reported_and_later_messages_arrive(
    impatient: Redis, other: Any
) -> None:
    async with aclosing(follow(impatient, "a", "b")) as heard:
        assert await next_of(heard) is None
        for n in range(3):
            await other.client_kill_filter(_type="pubsub")
            assert await next_of(heard) is None
            await other.publish("b", b"%d" % n)
            assert (await next_of(heard))["data"] == b"%d" % n


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_slow_reader_is_dropped_and_notified(impatient: Redis, other: Any) -> None:
    await other.config_set("client-output-buffer-limit", "pubsub 100000 0 0")
    async with aclosing(follow(impatient, "a")) as heard:
        assert await next_of(heard) is None
        for _ in range(20):
            if not await other.publish("a", b"x" * 1_000_000):
                break
        else:
            pytest.fail("Redis buffers 20 MB for a client that does not read")
        while await next_of(heard) is not None:
            pass
        await other.publish("a", b"small")
        assert (await next_of(heard))["data"] == b"small"


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_subscription_that_ends_silently_is_an_error(
    impatient: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends(self: Any) -> AsyncIterator[Any]:
        yield await self.handle_message(await self.parse_response(block=True))

    monkeypatch.setattr("redis.asyncio.client.PubSub.listen", ends)
    async with aclosing(messages(impatient, "a")) as heard:
        assert await next_of(heard) is None
        with pytest.raises(exceptions.ConnectionError, match="ended"):
            await next_of(heard)


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_client_gives_up_when_redis_stays_away(
    impatient: Redis, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "RECONNECT_SECONDS", 0.0)
    monkeypatch.setattr(subscription, "PAUSE_SECONDS", 0.01)
    async with aclosing(follow(impatient, "a")) as heard:
        assert await next_of(heard) is None
        await other.shutdown(nosave=True)
        with pytest.raises(exceptions.ConnectionError):
            await next_of(heard)


# -- the users of subscriptions --------------------------------------------------------------------


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_worker_receives_queries_after_silence_and_reconnects(
    impatient: Redis, other: Any, fresh: Fresh
) -> None:
    store, worker = await filled(other, keys), Worker(impatient)
    resets: list[int] = []

    async def on_reset() -> None:
        resets.append(1)

    worker.changes.on_reset = (on_reset,)
    async with running(*worker.services):
        await until(lambda: listening(other, 1))
        await asyncio.sleep(SILENCE)  # real silence is what is tested
        for n in range(3):
            replies = [reply async for reply in client.ask(store, "s", "which pump?", 20)]
            assert replies[-1]["type"] == "answer" and "error" not in replies[-1]
            await other.client_kill_filter(_type="pubsub")
            await until(partial(_is_over, resets, n + 1))
            await until(lambda: listening(other, 1))
    assert len(worker.answered) == 3


@pytest.mark.guarantee("Pub/sub queries")
@pytest.mark.parametrize("broken", [("pubsub",), ("pubsub", "normal")])
async def test_a_client_receives_the_whole_answer_through_a_reconnect(
    broken: Sequence[str], impatient: Redis, other: Any
) -> None:
    await filled(other, keys)
    worker = Worker(impatient)
    worker.gate.clear()
    async with running(*worker.services):
        await until(lambda: listening(other, 1))
        asking = asyncio.create_task(_all(StreamStore(impatient)))
        await until(lambda: worker.server.turns._value < 16)
        for kind in broken:
            await other.client_kill_filter(_type=kind)
        await until(lambda: listening(other, 1))
        worker.gate.set()
        replies = await asyncio.wait_for(asking, 20)
    answer = replies[-1]["answer"]
    assert "".join(piece["text"] for piece in replies[:-1]) == answer and len(replies) > 1
    assert len(worker.answered) == 1


def _is_over(resets: list[int], count: int) -> bool:
    return len(resets) > count


async def _all(store: StreamStore) -> list[dict[str, Any]]:
    return [reply async for reply in client.ask(store, "s", "which pump?", 20)]


@pytest.mark.guarantee("Pub/sub queries")
async def test_missed_pieces_are_taken_from_the_answer(impatient: Redis, other: Any) -> None:
    """A piece is published while the client reconnects; its text is in the answer."""
    store = StreamStore(impatient)
    async with aclosing(messages(other, keys.query_channel())) as queries:
        assert await next_of(queries) is None
        asking = asyncio.create_task(_all(store))
        query = decode((await next_of(queries))["data"])
        channel = keys.answer_channel(query["id"])
        await other.publish(channel, encode({"type": "text", "text": "pump "}))
        await until(lambda: _has_read(other, channel))
        await other.client_kill_filter(_type="pubsub")
        assert await next_of_again(queries, other) == query
        answer = {"type": "answer", "answer": "pump seven"}
        await other.publish(channel, encode(answer))
        *pieces, last = await asyncio.wait_for(asking, 20)
    assert [piece["text"] for piece in pieces] == ["pump ", "seven"] and last == answer


async def _has_read(redis: Any, channel: str) -> bool:
    return bool((await redis.pubsub_numsub(channel))[0][1])


async def next_of_again(heard: Any, redis: Any) -> Any:
    """The next query. The test's own subscription was dropped as well."""
    async with aclosing(messages(redis, keys.query_channel())) as again:
        assert await next_of(again) is None
        return decode((await next_of(again))["data"])


@pytest.mark.guarantee("Pub/sub queries")
async def test_updates_continue_through_a_reconnect(impatient: Redis, other: Any) -> None:
    store = StreamStore(impatient)
    updates = client.updates(store, "s")
    assert await next_of(updates) == {}
    await other.client_kill_filter(_type="pubsub")
    assert await next_of(updates) == {}
    await other.publish(keys.update_channel("s"), encode({"stream": "s"}))
    assert await next_of(updates) == {"stream": "s"}
    await updates.aclose()  # type: ignore[attr-defined]
