"""Query leases: one of several workers answers, and its answer is returned to repeated queries."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.events import decode
from stream_app.queries.lease import LEASE_MS, QueryLease, QueryLeases
from stream_app.requests import Query
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.leases import LEASED, LeaseStore
from tests.support.fakes import until
from tests.support.pubsub import PubSubClient, exist, is_idle, is_missing, workers_on

Fresh = Callable[[str], str]


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_lease_whose_reply_was_lost_is_still_the_workers(
    one: PubSubClient, stream: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis, query_id = one.workers[0].store.redis, fresh("query")
    first = redis.set

    async def again(*args: Any, **options: Any) -> Any:
        """Like a client that retries by itself."""
        await first(*args, **options)
        return await first(*args, **options)

    monkeypatch.setattr(redis, "set", again)
    await one.ask({"id": query_id, "stream": stream, "question": "q?"})
    assert (await one.next_answer())[0] == query_id


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_query_whose_lease_had_no_reply_can_be_sent_again_at_once(
    one: PubSubClient, stream: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis, query = one.workers[0].store.redis, {"id": fresh("query"), "stream": stream}
    name, put, is_leased = keys.lease(query["id"]), redis.set, asyncio.Event()

    async def lost(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(redis, "set", put)
        assert await put(*args, **options)
        assert await exist(one.redis, [name])
        is_leased.set()
        raise ConnectionError("the reply was lost")

    monkeypatch.setattr(redis, "set", lost)
    await one.ask(query | {"question": "q?"})
    await asyncio.wait_for(is_leased.wait(), 20)
    await until(lambda: is_missing(one.redis, name))
    await until(lambda: is_idle(one.workers[0]))
    await one.ask(query | {"question": "q?"})
    assert (await one.next_answer())[0] == query["id"]


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_lease_is_renewed_while_its_query_is_being_answered(
    one: PubSubClient, stream: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.queries.lease.RENEW_SECONDS", 0.02)
    query_id, (worker,) = fresh("query"), one.workers
    worker.gate.clear()
    await one.ask({"id": query_id, "stream": stream, "question": "q?"})
    await until(lambda: exist(one.redis, [keys.lease(query_id)]))
    for _ in range(3):
        await one.redis.pexpire(keys.lease(query_id), LEASE_MS // 2)
        await until(lambda: is_renewed(one.redis, keys.lease(query_id)))
    worker.gate.set()
    assert (await one.next_answer())[0] == query_id


async def is_renewed(redis: Any, name: str) -> bool:
    return bool(await redis.pttl(name) > LEASE_MS // 2)


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_worker_that_lost_its_lease_publishes_nothing_and_leaves_the_other_lease(
    one: PubSubClient, stream: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.queries.lease.RENEW_SECONDS", 0.02)
    lost, last, (worker,) = fresh("query"), fresh("query"), one.workers
    leases = list[QueryLease]()

    def of(here: QueryLeases, query_id: str) -> QueryLease:
        leases.append(QueryLease(here, query_id))
        return leases[-1]

    monkeypatch.setattr(QueryLeases, "of", of)
    worker.gate.clear()
    await one.ask({"id": lost, "stream": stream, "question": "q?"})
    await until(lambda: exist(one.redis, [keys.lease(lost)]))
    await one.redis.set(keys.lease(lost), LEASED + b" by another")
    await until(lambda: is_lost(leases[0]))
    worker.gate.set()
    await until(lambda: is_idle(worker))
    await one.ask({"id": last, "stream": stream, "question": "q?"})
    while (reply := await one.receive())[0] == last and decode(reply[1])["type"] != "answer":
        pass
    assert reply[0] == last, "nothing was published for the other query"
    assert await one.redis.get(keys.lease(lost)) == LEASED + b" by another"


async def is_lost(lease: QueryLease) -> bool:
    return not lease.held


@pytest.mark.guarantee("Pub/sub queries")
async def test_completing_twice_is_completing_once(redis_client: Redis, fresh: Fresh) -> None:
    one, other = (
        QueryLeases(LeaseStore(redis_client, keys)).of(name) for name in [fresh("query")] * 2
    )
    assert await one.acquire()
    assert not await other.acquire()
    assert [await one.complete(b"answer", 60) for _ in range(2)] == [True, True]
    await one.release()  # releases nothing: the key holds the answer now
    assert not await other.complete(b"another", 60)
    assert not await other.acquire()
    assert other.answer == b"answer"


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_query_sent_again_has_the_same_answer_once_more(
    three: PubSubClient, stream: str, fresh: Fresh
) -> None:
    query, last = {"id": fresh("query"), "stream": stream, "question": "q?"}, fresh("query")
    await three.ask(query)
    first = await three.next_answer()
    await three.ask(query)
    assert await three.receive() == first
    await three.ask(query | {"id": last})
    assert (await three.next_answer())[0] == last, "nothing else was published in between"
    assert sum(len(worker.answered) for worker in three.workers) == 2


@pytest.mark.guarantee("Pub/sub queries")
async def test_an_answer_can_be_had_again_later(
    three: PubSubClient, stream: str, fresh: Fresh
) -> None:
    query = {"id": fresh("query"), "stream": stream, "question": "q?"}
    await three.ask(query)
    first = await three.next_answer()
    for _ in range(2):
        await three.redis.delete(keys.repeated(query["id"]))
        await three.ask(query)
        assert await three.receive() == first
        await until(lambda: three.redis.exists(keys.repeated(query["id"])))


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_query_whose_worker_died_can_be_sent_again_when_its_lease_has_expired(
    redis_url: str, stream: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = {"id": fresh("query"), "stream": stream, "question": "q?", "deadline": 10}
    name = keys.lease(str(query["id"]))
    with monkeypatch.context() as patch:
        patch.setattr(QueryLease, "release", _not_released)  # by a worker that is killed
        async with workers_on(redis_url, 1) as first:
            first.workers[0].gate.clear()
            await first.ask(query)
            await until(lambda: exist(first.redis, [name]))
    async with workers_on(redis_url, 1) as second:
        assert 0 < await second.redis.pttl(name) <= LEASE_MS
        await second.ask(query)
        last = fresh("query")
        await second.ask(query | {"id": last})
        answered, _ = await second.next_answer()
        assert answered == last, "while the lease lasts no other worker answers"
        await second.redis.pexpire(name, 1)
        await until(lambda: is_missing(second.redis, name))
        await second.ask(query)
        assert (await second.next_answer())[0] == query["id"]


async def _not_released(lease: QueryLease) -> None: ...


@pytest.mark.guarantee("Bounded counts")
async def test_kept_answers_have_a_memory_limit(redis_client: Redis, fresh: Fresh) -> None:
    leases, answer = QueryLeases(LeaseStore(redis_client, keys)), b"a" * 1000
    ids = [fresh("query") for _ in range(40)]
    leases.max_bytes = 20_000
    for query_id in ids:
        lease = leases.of(query_id)
        assert await lease.acquire() and await lease.complete(answer, 600)
        assert await lease.complete(answer, 600)  # as after a reply that was lost
        kept = [each for each in ids if await redis_client.exists(keys.lease(each))]
        sizes = [await redis_client.memory_usage(keys.lease(each)) for each in kept]
        assert sum(filter(None, sizes)) <= leases.bytes <= leases.max_bytes
        assert kept[-1] == query_id and kept == ids[: ids.index(query_id) + 1][-len(kept) :]
    assert len(kept) >= 10


async def test_expired_answers_are_forgotten_first(redis_client: Redis) -> None:
    leases = QueryLeases(LeaseStore(redis_client, keys))
    leases.max_bytes = 1000
    await leases.keep("expired", 500, -1)
    await leases.keep("kept", 100, 600)
    await leases.keep("new", 100, 600)
    assert [*leases.answers] == ["kept", "new"]


async def test_a_worker_that_stops_releases_the_lease_of_a_query_it_leaves(
    one: PubSubClient, stream: str, fresh: Fresh
) -> None:
    (worker,), query = one.workers, Query(fresh("query"), stream, "q?")
    worker.gate.clear()
    publishing = asyncio.create_task(worker.server.publisher.answer(query))
    await until(lambda: exist(one.redis, [keys.lease(query.id)]))
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert not await exist(one.redis, [keys.lease(query.id)])
