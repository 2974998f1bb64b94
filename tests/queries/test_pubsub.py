"""The pub/sub endpoint: one answer to each query, in the format the query was sent in."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import msgpack
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from stream_app.client import client
from stream_app.errors import UnreachableError
from stream_app.events import decode, encode
from stream_app.queries import pubsub
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.state import QuestionRecord
from tests.support.fakes import until
from tests.support.pubsub import PubSubClient, Worker, exist, is_missing, listening, workers_on

Fresh = Callable[[str], str]


@pytest.mark.guarantee("Pub/sub queries")
async def test_one_query_has_one_answer_with_any_number_of_workers(
    three: PubSubClient, stream: str, fresh: Fresh
) -> None:
    ids = [fresh("query") for _ in range(12)]
    for query_id in ids:
        await three.ask({"id": query_id, "stream": stream, "question": "q?"})
    reply = [await three.next_answer() for _ in ids]
    assert sorted(query_id for query_id, _ in reply) == sorted(ids)
    assert all("error" not in decode(data) for _, data in reply)
    assert sorted(id for worker in three.workers for id in worker.answered) == sorted(ids)


@pytest.mark.guarantee("Pub/sub queries")
async def test_pieces_that_could_not_be_published_are_in_the_answer(
    one: PubSubClient, stream: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    query_id, publisher = fresh("query"), one.workers[0].server.publisher
    publish = publisher._publish

    async def no_pieces(query_id: str, message: bytes) -> None:
        if decode(message)["type"] == "text":
            raise ConnectionError("Redis is away")
        await publish(query_id, message)

    monkeypatch.setattr(publisher, "_publish", no_pieces)
    await one.ask({"id": query_id, "stream": stream, "question": "q?"})
    reply, data = await one.receive()
    assert reply == query_id
    assert decode(data)["answer"]


@pytest.mark.guarantee("Pub/sub queries")
async def test_json_is_answered_in_json_and_msgpack_in_msgpack(
    one: PubSubClient, stream: str, fresh: Fresh
) -> None:
    query = {"id": fresh("query"), "stream": stream, "question": "q?"}
    await one.ask(query)
    messages = [(await one.receive())[1] for _ in range(4)]
    plain = [json.loads(data) for data in messages]
    await one.ask(msgpack.packb(query | {"id": fresh("query")}))
    packed = [msgpack.unpackb((await one.receive())[1]) for _ in range(4)]
    assert [m["type"] for m in plain] == [m["type"] for m in packed] == ["text"] * 3 + ["answer"]
    assert "".join(m["text"] for m in plain[:3]) == plain[3]["answer"] == packed[3]["answer"]
    assert plain[3]["evidence"] == packed[3]["evidence"] != []
    assert (plain[3]["id"], plain[3]["stream"]) == (query["id"], stream)


@pytest.mark.guarantee("Pub/sub queries")
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "no stream"),
        ({"stream": 7}, "no stream"),
        ({"stream": "s", "question": " "}, "question is empty"),
        ({"stream": "s", "deadline": "soon"}, "'deadline' must be seconds"),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
async def test_a_malformed_query_with_an_id_gets_the_reason(
    as_json: bool, fields: dict[str, Any], reason: str, one: PubSubClient, fresh: Fresh
) -> None:
    query_id = fresh("query")
    await one.ask(encode(fields | {"id": query_id}, as_json))
    reply, data = await one.receive()
    answer = json.loads(data) if as_json else msgpack.unpackb(data)
    assert (reply, answer["id"], answer["type"]) == (query_id, query_id, "answer")
    assert reason in answer["error"]


MALFORMED = [
    b"", b"{", b"\xff\xfe", b"plain text", b'{"id": 7}', b'{"id": ""}', b"[" * 100_000,
    b'{"id": "\\ud800", "stream": "s"}', b'{"id": "\\ud800"}', b'{"id": "x", "stream": "\\udfff"}',
    b"\x81\xa2id\xc4\x01x", b"\x81\xa2id", b'{"id": "x"}' + b" " * 9000, b"\x00",
    json.dumps({"id": "x" * 300, "stream": "s"}).encode(),
]  # fmt: skip


@pytest.mark.guarantee("Pub/sub queries")
async def test_the_server_survives_any_message(
    three: PubSubClient, stream: str, fresh: Fresh
) -> None:
    last = fresh("query")
    for data in MALFORMED:
        await three.ask(data)
    await three.redis.publish(keys.question_channel(), b"\xff")
    await three.ask({"id": last, "stream": stream, "question": "q?"})
    while (reply := await three.next_answer())[0] != last:
        assert decode(reply[1])["error"]
    assert "error" not in decode(reply[1])


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two queries at once and three waiting ones."""
    monkeypatch.setattr(pubsub, "MAX_CONCURRENT_QUERIES", 2)
    monkeypatch.setattr(pubsub, "MAX_WAITING_QUERIES", 3)


@pytest.mark.guarantee("Bounded counts")
@pytest.mark.usefixtures("narrow")
async def test_with_too_many_waiting_queries_the_next_is_rejected_at_once(
    one: PubSubClient, stream: str, fresh: Fresh
) -> None:
    (worker,), ids = one.workers, [fresh("query") for _ in range(9)]
    worker.gate.clear()
    for query_id in ids:
        await one.ask({"id": query_id, "stream": stream, "question": "q?"})
    refused = dict([await one.next_answer() for _ in ids[5:]])
    assert set(refused) == set(ids[5:])
    for data in refused.values():
        assert "too many queries wait" in json.loads(data)["error"]
        assert json.loads(data)["question"] == "q?"
    worker.gate.set()
    answers = dict([await one.next_answer() for _ in ids[:5]])
    assert set(answers) == set(ids[:5]) == set(worker.answered)
    assert all("error" not in decode(data) for data in answers.values())


@pytest.mark.guarantee("Bounded counts")
@pytest.mark.usefixtures("narrow")
async def test_a_rejected_query_can_be_sent_again_with_its_id(
    one: PubSubClient, stream: str, fresh: Fresh
) -> None:
    (worker,), ids = one.workers, [fresh("query") for _ in range(6)]
    worker.gate.clear()
    for query_id in ids:
        await one.ask({"id": query_id, "stream": stream, "question": "q?"})
    assert "error" in decode((await one.next_answer())[1])
    worker.gate.set()
    for _ in ids[:5]:
        await one.next_answer()
    await until(lambda: is_missing(one.redis, keys.lease(ids[5])))
    await one.ask({"id": ids[5], "stream": stream, "question": "q?"})
    query_id, data = await one.next_answer()
    assert query_id == ids[5] and "error" not in decode(data)


@pytest.mark.guarantee("Bounded counts")
@pytest.mark.usefixtures("narrow")
async def test_queries_that_others_answer_do_not_fill_a_busy_worker(
    redis_url: str, stream: str, fresh: Fresh
) -> None:
    async with workers_on(redis_url, 2) as two:
        busy, free = two.workers
        busy.gate.clear()
        free.gate.clear()
        first = [fresh("query") for _ in range(4)]
        for query_id in first:  # two for each worker, in any order
            await two.ask({"id": query_id, "stream": stream, "question": "q?"})
        leases = [keys.lease(query_id) for query_id in first]
        await until(lambda: exist(two.redis, leases))
        free.gate.set()
        for _ in range(2):
            await two.next_answer()
        for _ in range(12):
            await two.ask({"id": fresh("query"), "stream": stream, "question": "q?"})
            assert "error" not in decode((await two.next_answer())[1])
        assert len(free.answered) == 14 and not busy.answered
        await until(lambda: at_most(2 + 3))  # the dropped queries have ended


async def at_most(queries: int) -> bool:
    """Whether all servers together have no more queries that run or wait."""
    tasks = [task for task in asyncio.all_tasks() if "_guarded" in repr(task.get_coro())]
    return len(tasks) <= queries


@pytest.mark.guarantee("Bounded counts")
async def test_a_message_over_the_limit_is_refused_before_anything_is_kept_of_it(
    one: PubSubClient, stream: str, fresh: Fresh
) -> None:
    (worker,), last = one.workers, fresh("query")
    worker.gate.clear()
    for _ in range(400):
        await one.ask(b'{"id": "x", "stream": "s", "question": "' + b"x" * 5000 + b'"}')
    await one.ask({"id": last, "stream": stream, "question": "q?"})
    await until(lambda: not worker.server.waiting and worker.server.turns._value < 16)
    worker.gate.set()
    assert (await one.next_answer())[0] == last


async def test_an_unknown_stream_is_an_answer_with_the_reason(
    one: PubSubClient, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await one.ask({"id": fresh("query"), "stream": stream, "question": "q?"})
    assert repr(stream) in decode((await one.next_answer())[1])["error"]


async def test_the_client_receives_text_and_answer(one: PubSubClient, stream: str) -> None:
    messages = [message async for message in client.ask(one.store, stream, "q?", 20)]
    assert [message["type"] for message in messages] == ["text"] * 3 + ["answer"]
    assert messages[-1]["answer"] == "q? 3 segments"


@pytest.mark.guarantee("Pub/sub queries")
async def test_the_client_raises_when_no_worker_listens(redis_url: str) -> None:
    async with workers_on(redis_url, 0) as none:
        with pytest.raises(UnreachableError, match="no worker listens"):
            await anext(client.ask(none.store, "s", "q?", 1))


async def test_updates_arrive_as_the_top_k_changes(one: PubSubClient, stream: str) -> None:
    (worker,), updates = one.workers, client.updates(one.store, stream)
    assert await anext(updates) == {}
    await worker.store.questions.ask(stream, worker.scorer.question_id("q?"), QuestionRecord("q?"))
    worker.scorer.streams.own([stream])
    async with asyncio.timeout(20):
        update = await anext(updates)
    assert (update["stream"], update["question"]) == (stream, "q?")
    await updates.aclose()  # type: ignore[attr-defined]


@pytest.mark.guarantee("Redis outages")
async def test_a_server_whose_connection_breaks_listens_again(
    one: PubSubClient, stream: str, fresh: Fresh
) -> None:
    (worker,) = one.workers
    for connection in await one.redis.client_list(_type="pubsub"):
        if connection["sub"] == "1":
            await one.redis.client_kill_filter(_id=connection["id"])
    await until(lambda: listening(one.redis, 1))
    await one.ask({"id": fresh("query"), "stream": stream, "question": "q?"})
    assert "error" not in decode((await one.next_answer())[1])
    assert len(worker.answered) == 1


async def test_a_server_cancelled_as_its_connection_fails_ends(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(redis_client)

    async def fail(*args: Any) -> None:
        cast(Any, asyncio.current_task()).cancel()
        with suppress(asyncio.CancelledError):  # as `asyncio.wait_for` does when it finishes, too
            await asyncio.sleep(0)
        raise RedisConnectionError("away")

    monkeypatch.setattr(worker.server, "_listen", fail)
    async with asyncio.timeout(5):
        [ended] = await asyncio.gather(worker.server.run(), return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError)
    assert worker.server.health.ok


async def test_a_server_that_fails_by_its_own_fault_ends_with_the_error(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(redis_client)

    async def fail(*args: Any) -> None:
        raise FileNotFoundError("put_lease.lua")

    monkeypatch.setattr(worker.server, "_listen", fail)
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(worker.server.run(), 5)
    assert raised.group_contains(FileNotFoundError)
    assert worker.server.health.ok
