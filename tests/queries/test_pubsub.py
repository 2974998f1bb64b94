"""The pub/sub door: however many listen, a query has one answer, in the form it was asked in."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import msgpack
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from stream_app.client import client
from stream_app.errors import UnreachableError
from stream_app.events import decode, encode
from stream_app.queries import pubsub
from stream_app.queries.answering import Answering
from stream_app.queries.kafka import MAX_CONCURRENT_QUERIES
from stream_app.queries.lease import LEASE_MS, LEASED, QueryLease, QueryLeases
from stream_app.queries.prefetch import PromptPrefetcher
from stream_app.queries.pubsub import PubSubServer
from stream_app.runtime.retry import Health
from stream_app.runtime.shutdown import Shutdown
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.keys import Keys
from stream_app.store.state import Commit, QuestionRecord
from stream_app.store.store import StreamStore
from tests.support.fakes import PLENTY, HashEngine, running, until

Fresh = Callable[[str], str]


class Worker:
    """A door and what answers behind it, on a connection of its own."""

    def __init__(self, redis: Redis, prefix: str = "xl3m") -> None:
        settings = Settings(max_event_bytes=4096, prefix=prefix)
        engine, health = HashEngine(), Health()
        self.store = StreamStore(redis, PLENTY, PLENTY, Keys(prefix))
        self.scoring = Scorer(
            engine,
            self.store,
            health,
            PLENTY,
            on_change=lambda stream, qid: warming.changed(stream, qid),
        )
        warming = PromptPrefetcher(engine, self.store, self.scoring, health)
        answering = Answering(settings, engine, self.store, self.scoring, warming, health)
        self.door = PubSubServer(settings, redis, answering, self.scoring, health, Shutdown(20))
        self.answered: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = answering.answer
        answering.answer = self.answer  # type: ignore[method-assign]

    async def answer(self, query: Any, on_text: Any = None) -> Any:
        """Note who answered; not before the gate is open."""
        await self.gate.wait()
        self.answered.append(query.id)
        return await self.asked(query, on_text)


class Asker:
    """Hears every answer there is, and asks."""

    def __init__(self, redis: Redis, workers: list[Worker], pubsub: Any) -> None:
        self.redis, self.workers, self.pubsub = redis, workers, pubsub
        self.store = StreamStore(redis, PLENTY, PLENTY)

    async def ask(self, message: bytes | dict[str, Any]) -> None:
        """Publish a query."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        assert await self.redis.publish(keys.query_channel(), data) == len(self.workers)

    async def hear(self) -> tuple[str, bytes]:
        """The next that is said to anybody: the query's id, and what."""
        async with asyncio.timeout(20):
            message = await anext(self.pubsub.listen())
        return message["channel"].decode().removeprefix("xl3m:answer:"), message["data"]

    async def answer(self) -> tuple[str, bytes]:
        """The next answer, its text passed over."""
        while True:
            query_id, data = await self.hear()
            if decode(data)["type"] == "answer":
                return query_id, data


@asynccontextmanager
async def place(redis_url: str, count: int) -> AsyncIterator[Asker]:
    """So many workers on a database of Redis that nobody else uses, and an asker."""
    workers = [Worker(Redis.from_url(redis_url)) for _ in range(count)]
    async with Redis.from_url(redis_url) as redis, redis.pubsub() as heard:
        heard.ignore_subscribe_messages = True
        await heard.psubscribe(keys.answer_channel("*"))
        services = [service for w in workers for service in (w.door, w.scoring)]
        async with running(*services):
            await until(lambda: listening(redis, count))
            yield Asker(redis, workers, heard)
    for worker in workers:
        await worker.door.redis.aclose()


async def listening(redis: Any, count: int) -> bool:
    return bool((await redis.pubsub_numsub(keys.query_channel()))[0][1] == count)


@pytest.fixture
async def three(redis_url: str) -> AsyncIterator[Asker]:
    """Three workers."""
    async with place(redis_url, 3) as asker:
        yield asker


@pytest.fixture
async def one(redis_url: str) -> AsyncIterator[Asker]:
    """One worker."""
    async with place(redis_url, 1) as asker:
        yield asker


@pytest.fixture
async def stream(redis_client: Redis, fresh: Fresh) -> str:
    """A stream with something in it."""
    name, segmenter = fresh("stream"), HashEngine().segmenter()
    store = StreamStore(redis_client, PLENTY, PLENTY)
    base = await store.load(name)
    tail, segments = segmenter.push(base.tail, "".join(f"line {i}\n" for i in range(20)))
    await store.commit([Commit(name, base, segments, tail, "t/0", 1, 1)])
    return name


@pytest.mark.guarantee("Pub/sub queries")
async def test_one_query_has_one_answer_however_many_listen(
    three: Asker, stream: str, fresh: Fresh
) -> None:
    ids = [fresh("query") for _ in range(12)]
    for query_id in ids:
        await three.ask({"id": query_id, "stream": stream, "question": "q?"})
    heard = [await three.answer() for _ in ids]
    assert sorted(query_id for query_id, _ in heard) == sorted(ids)
    assert all("error" not in decode(data) for _, data in heard)
    assert sorted(id for worker in three.workers for id in worker.answered) == sorted(ids)


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_claim_whose_reply_was_lost_is_still_the_worker_s(
    one: Asker, stream: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis, query_id = one.workers[0].door.redis, fresh("query")
    first = redis.set

    async def again(*args: Any, **options: Any) -> Any:
        """As a client that tries again by itself."""
        await first(*args, **options)
        return await first(*args, **options)

    monkeypatch.setattr(redis, "set", again)
    await one.ask({"id": query_id, "stream": stream, "question": "q?"})
    assert (await one.answer())[0] == query_id


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_query_whose_claim_had_no_reply_can_be_asked_again_at_once(
    one: Asker, stream: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis, query = one.workers[0].door.redis, {"id": fresh("query"), "stream": stream}
    claim, put, claimed = keys.lease(query["id"]), redis.set, asyncio.Event()

    async def lost(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(redis, "set", put)
        assert await put(*args, **options)
        assert await all_there(one.redis, [claim])
        claimed.set()
        raise ConnectionError("the reply was lost")

    monkeypatch.setattr(redis, "set", lost)
    await one.ask(query | {"question": "q?"})
    await asyncio.wait_for(claimed.wait(), 20)
    await until(lambda: not_there(one.redis, claim))
    await until(lambda: idle(one.workers[0]))
    await one.ask(query | {"question": "q?"})
    assert (await one.answer())[0] == query["id"]


async def idle(worker: Worker) -> bool:
    return worker.door.places._value == MAX_CONCURRENT_QUERIES


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_claim_is_renewed_while_its_query_waits_for_its_answer(
    one: Asker, stream: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.queries.lease.RENEW_SECONDS", 0.02)
    query_id, (worker,) = fresh("query"), one.workers
    worker.gate.clear()
    await one.ask({"id": query_id, "stream": stream, "question": "q?"})
    await until(lambda: all_there(one.redis, [keys.lease(query_id)]))
    for _ in range(3):
        await one.redis.pexpire(keys.lease(query_id), LEASE_MS // 2)
        await until(lambda: renewed(one.redis, keys.lease(query_id)))
    worker.gate.set()
    assert (await one.answer())[0] == query_id


async def renewed(redis: Any, claim: str) -> bool:
    return bool(await redis.pttl(claim) > LEASE_MS // 2)


@pytest.mark.guarantee("Pub/sub queries")
async def test_who_has_lost_its_claim_says_nothing_and_leaves_the_other_s(
    one: Asker, stream: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.queries.lease.RENEW_SECONDS", 0.02)
    lost, last, (worker,) = fresh("query"), fresh("query"), one.workers
    claims = list[QueryLease]()

    def of(here: QueryLeases, query_id: str) -> QueryLease:
        claims.append(QueryLease(here, keys.lease(query_id)))
        return claims[-1]

    monkeypatch.setattr(QueryLeases, "of", of)
    worker.gate.clear()
    await one.ask({"id": lost, "stream": stream, "question": "q?"})
    await until(lambda: all_there(one.redis, [keys.lease(lost)]))
    await one.redis.set(keys.lease(lost), LEASED + b" by another")
    await until(lambda: is_lost(claims[0]))
    worker.gate.set()
    await until(lambda: idle(worker))
    await one.ask({"id": last, "stream": stream, "question": "q?"})
    while (heard := await one.hear())[0] == last and decode(heard[1])["type"] != "answer":
        pass
    assert heard[0] == last, "of the other nothing was said before"
    assert await one.redis.get(keys.lease(lost)) == LEASED + b" by another"


async def is_lost(claim: QueryLease) -> bool:
    return not claim.mine


@pytest.mark.guarantee("Pub/sub queries")
async def test_what_could_not_be_said_is_in_the_answer(
    one: Asker, stream: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    query_id, door = fresh("query"), one.workers[0].door
    publish = door._publish

    async def no_pieces(query_id: str, message: bytes) -> None:
        if decode(message)["type"] == "text":
            raise ConnectionError("Redis is away")
        await publish(query_id, message)

    monkeypatch.setattr(door, "_publish", no_pieces)
    await one.ask({"id": query_id, "stream": stream, "question": "q?"})
    heard, data = await one.hear()
    assert heard == query_id
    assert decode(data)["answer"]


@pytest.mark.guarantee("Pub/sub queries")
async def test_an_answer_that_is_left_twice_is_left(redis_client: Redis, fresh: Fresh) -> None:
    one, other = (QueryLeases(redis_client, keys).of(name) for name in [fresh("query")] * 2)
    assert await one.take()
    assert not await other.take()
    assert [await one.complete(b"answer", 60) for _ in range(2)] == [True, True]
    await one.release()  # lets nothing go: what stands there is an answer now
    assert not await other.complete(b"another", 60)
    assert not await other.take()
    assert other.answer == b"answer"


@pytest.mark.guarantee("Pub/sub queries")
async def test_asked_again_the_same_answer_comes_once_more(
    three: Asker, stream: str, fresh: Fresh
) -> None:
    query, last = {"id": fresh("query"), "stream": stream, "question": "q?"}, fresh("query")
    await three.ask(query)
    first = await three.answer()
    await three.ask(query)
    assert await three.hear() == first
    await three.ask(query | {"id": last})
    assert (await three.answer())[0] == last, "nothing else was said in between"
    assert sum(len(worker.answered) for worker in three.workers) == 2


@pytest.mark.guarantee("Pub/sub queries")
async def test_an_answer_can_be_had_again_after_a_while(
    three: Asker, stream: str, fresh: Fresh
) -> None:
    query = {"id": fresh("query"), "stream": stream, "question": "q?"}
    await three.ask(query)
    first = await three.answer()
    for _ in range(2):
        await three.redis.delete(keys.repeated(query["id"]))
        await three.ask(query)
        assert await three.hear() == first
        await until(lambda: three.redis.exists(keys.repeated(query["id"])))


@pytest.mark.guarantee("Pub/sub queries")
async def test_json_is_answered_in_json_and_msgpack_in_msgpack(
    one: Asker, stream: str, fresh: Fresh
) -> None:
    query = {"id": fresh("query"), "stream": stream, "question": "q?"}
    await one.ask(query)
    said = [(await one.hear())[1] for _ in range(4)]
    plain = [json.loads(data) for data in said]
    await one.ask(msgpack.packb(query | {"id": fresh("query")}))
    packed = [msgpack.unpackb((await one.hear())[1]) for _ in range(4)]
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
async def test_a_malformed_query_with_an_id_is_told_why(
    as_json: bool, fields: dict[str, Any], reason: str, one: Asker, fresh: Fresh
) -> None:
    query_id = fresh("query")
    await one.ask(encode(fields | {"id": query_id}, as_json))
    heard, data = await one.hear()
    answer = json.loads(data) if as_json else msgpack.unpackb(data)
    assert (heard, answer["id"], answer["type"]) == (query_id, query_id, "answer")
    assert reason in answer["error"]


MALFORMED = [
    b"", b"{", b"\xff\xfe", b"plain text", b'{"id": 7}', b'{"id": ""}', b"[" * 100_000,
    b'{"id": "\\ud800", "stream": "s"}', b'{"id": "\\ud800"}', b'{"id": "x", "stream": "\\udfff"}',
    b"\x81\xa2id\xc4\x01x", b"\x81\xa2id", b'{"id": "x"}' + b" " * 9000, b"\x00",
    json.dumps({"id": "x" * 300, "stream": "s"}).encode(),
]  # fmt: skip


@pytest.mark.guarantee("Pub/sub queries")
async def test_the_door_goes_on_whatever_comes_through_it(
    three: Asker, stream: str, fresh: Fresh
) -> None:
    last = fresh("query")
    for data in MALFORMED:
        await three.ask(data)
    await three.redis.publish(keys.question_channel(), b"\xff")
    await three.ask({"id": last, "stream": stream, "question": "q?"})
    while (heard := await three.answer())[0] != last:
        assert decode(heard[1])["error"]
    assert "error" not in decode(heard[1])


@pytest.fixture
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two queries at once, and three that wait."""
    monkeypatch.setattr(pubsub, "MAX_CONCURRENT_QUERIES", 2)
    monkeypatch.setattr(pubsub, "QUERIES_WAITING", 3)


@pytest.mark.guarantee("Bounded counts")
@pytest.mark.usefixtures("_narrow")
async def test_when_as_many_wait_as_may_the_next_is_told_so_at_once(
    one: Asker, stream: str, fresh: Fresh
) -> None:
    (worker,), ids = one.workers, [fresh("query") for _ in range(9)]
    worker.gate.clear()
    for query_id in ids:
        await one.ask({"id": query_id, "stream": stream, "question": "q?"})
    refused = dict([await one.answer() for _ in ids[5:]])
    assert set(refused) == set(ids[5:])
    for data in refused.values():
        assert "too many queries wait" in json.loads(data)["error"]
        assert json.loads(data)["question"] == "q?"
    worker.gate.set()
    answers = dict([await one.answer() for _ in ids[:5]])
    assert set(answers) == set(ids[:5]) == set(worker.answered)
    assert all("error" not in decode(data) for data in answers.values())


@pytest.mark.guarantee("Bounded counts")
@pytest.mark.usefixtures("_narrow")
async def test_a_query_turned_away_can_be_asked_again_under_its_id(
    one: Asker, stream: str, fresh: Fresh
) -> None:
    (worker,), ids = one.workers, [fresh("query") for _ in range(6)]
    worker.gate.clear()
    for query_id in ids:
        await one.ask({"id": query_id, "stream": stream, "question": "q?"})
    assert "error" in decode((await one.answer())[1])
    worker.gate.set()
    for _ in ids[:5]:
        await one.answer()
    await until(lambda: not_there(one.redis, keys.lease(ids[5])))
    await one.ask({"id": ids[5], "stream": stream, "question": "q?"})
    query_id, data = await one.answer()
    assert query_id == ids[5] and "error" not in decode(data)


@pytest.mark.guarantee("Bounded counts")
@pytest.mark.usefixtures("_narrow")
async def test_what_others_answer_takes_up_no_room_in_a_worker_that_is_busy(
    redis_url: str, stream: str, fresh: Fresh
) -> None:
    async with place(redis_url, 2) as two:
        busy, free = two.workers
        busy.gate.clear()
        free.gate.clear()
        held = [fresh("query") for _ in range(4)]
        for query_id in held:  # two each; who has which is theirs to say
            await two.ask({"id": query_id, "stream": stream, "question": "q?"})
        claims = [keys.lease(query_id) for query_id in held]
        await until(lambda: all_there(two.redis, claims))
        free.gate.set()
        for _ in range(2):
            await two.answer()
        for _ in range(12):
            await two.ask({"id": fresh("query"), "stream": stream, "question": "q?"})
            assert "error" not in decode((await two.answer())[1])
        assert len(free.answered) == 14 and not busy.answered
        await until(lambda: at_most(2 + 3))  # what is let go is gone


async def at_most(queries: int) -> bool:
    """Whether no more are answered or wait, in all doors."""
    tasks = [task for task in asyncio.all_tasks() if "_guarded" in repr(task.get_coro())]
    return len(tasks) <= queries


async def all_there(redis: Any, names: list[str]) -> bool:
    return bool(await redis.exists(*names) == len(names))


async def not_there(redis: Any, name: str) -> bool:
    return not await redis.exists(name)


@pytest.mark.guarantee("Bounded counts")
async def test_a_message_over_the_limit_is_refused_before_anything_is_kept_of_it(
    one: Asker, stream: str, fresh: Fresh
) -> None:
    (worker,), last = one.workers, fresh("query")
    worker.gate.clear()
    for _ in range(400):
        await one.ask(b'{"id": "x", "stream": "s", "question": "' + b"x" * 5000 + b'"}')
    await one.ask({"id": last, "stream": stream, "question": "q?"})
    await until(lambda: not worker.door.waiting and worker.door.places._value < 16)
    worker.gate.set()
    assert (await one.answer())[0] == last


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_query_whose_worker_died_can_be_asked_again_when_its_lease_is_over(
    redis_url: str, stream: str, fresh: Fresh
) -> None:
    query = {"id": fresh("query"), "stream": stream, "question": "q?", "deadline": 10}
    claim = keys.lease(str(query["id"]))
    async with place(redis_url, 1) as first:
        first.workers[0].gate.clear()
        await first.ask(query)
        await until(lambda: all_there(first.redis, [claim]))
    async with place(redis_url, 1) as second:
        assert 0 < await second.redis.pttl(claim) <= LEASE_MS
        await second.ask(query)
        last = fresh("query")
        await second.ask(query | {"id": last})
        assert (await second.answer())[0] == last, "while the lease runs nobody answers for another"
        await second.redis.pexpire(claim, 1)
        await until(lambda: not_there(second.redis, claim))
        await second.ask(query)
        assert (await second.answer())[0] == query["id"]


@pytest.mark.guarantee("Bounded counts")
async def test_answers_that_are_kept_take_no_more_than_a_bound(
    redis_client: Redis, fresh: Fresh
) -> None:
    claims, ids, answer = (
        QueryLeases(redis_client, keys),
        [fresh("query") for _ in range(40)],
        b"a" * 1000,
    )
    claims.kept_bytes = 20_000
    for query_id in ids:
        claim = claims.of(query_id)
        assert await claim.take() and await claim.complete(answer, 600)
        assert await claim.complete(answer, 600)  # as after a reply that was lost
        there = [each for each in ids if await redis_client.exists(keys.lease(each))]
        taken = [await redis_client.memory_usage(keys.lease(each)) for each in there]
        assert sum(filter(None, taken)) <= claims.bytes <= claims.kept_bytes
        assert there[-1] == query_id and there == ids[: ids.index(query_id) + 1][-len(there) :]
    assert len(there) >= 10


async def test_answers_whose_time_is_over_make_room_first(redis_client: Redis) -> None:
    claims = QueryLeases(redis_client, keys)
    claims.kept_bytes = 1000
    await claims.keep("over", 500, -1)
    await claims.keep("there", 100, 600)
    await claims.keep("new", 100, 600)
    assert [*claims.kept] == ["there", "new"]


async def test_an_unknown_stream_is_an_answer_too(one: Asker, fresh: Fresh) -> None:
    stream = fresh("stream")
    await one.ask({"id": fresh("query"), "stream": stream, "question": "q?"})
    assert repr(stream) in decode((await one.answer())[1])["error"]


async def test_the_client_hears_text_and_answer(one: Asker, stream: str) -> None:
    said = [message async for message in client.ask(one.store, stream, "q?", 20)]
    assert [message["type"] for message in said] == ["text"] * 3 + ["answer"]
    assert said[-1]["answer"] == "q? 3 segments"


@pytest.mark.guarantee("Pub/sub queries")
async def test_the_client_is_told_when_nobody_listens(redis_url: str) -> None:
    async with place(redis_url, 0) as nobody:
        with pytest.raises(UnreachableError, match="no worker listens"):
            await anext(client.ask(nobody.store, "s", "q?", 1))


@pytest.mark.guarantee("Standing questions")
async def test_a_question_set_elsewhere_is_heard_of(one: Asker, stream: str) -> None:
    (worker,) = one.workers
    worker.scoring.streams.own([stream])
    await until(lambda: worker.scoring.streams.tracked[stream].cursor.version == 1)
    qid = worker.scoring.question_id("q?")
    await worker.store.ask(stream, qid, QuestionRecord("q?"))
    await one.redis.publish(keys.question_channel(), stream.encode())
    await until(lambda: worker.scoring.streams.tracked[stream].questions)


async def test_updates_are_heard_as_the_top_k_changes(one: Asker, stream: str) -> None:
    (worker,), updates = one.workers, client.updates(one.store, stream)
    assert await anext(updates) == {}
    await worker.store.ask(stream, worker.scoring.question_id("q?"), QuestionRecord("q?"))
    worker.scoring.streams.own([stream])
    async with asyncio.timeout(20):
        update = await anext(updates)
    assert (update["stream"], update["question"]) == (stream, "q?")
    await updates.aclose()  # type: ignore[attr-defined]


@pytest.mark.guarantee("Redis outages")
async def test_a_door_whose_connection_breaks_listens_again(
    one: Asker, stream: str, fresh: Fresh
) -> None:
    (worker,) = one.workers
    for connection in await one.redis.client_list(_type="pubsub"):
        if connection["sub"] == "2":
            await one.redis.client_kill_filter(_id=connection["id"])
    await until(lambda: listening(one.redis, 1))
    await one.ask({"id": fresh("query"), "stream": stream, "question": "q?"})
    assert "error" not in decode((await one.answer())[1])
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

    monkeypatch.setattr(worker.door, "_listen", fail)
    async with asyncio.timeout(5):
        [ended] = await asyncio.gather(worker.door.run(), return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError)
    assert worker.door.health.ok


async def test_a_server_that_fails_by_its_own_fault_ends_with_the_error(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(redis_client)

    async def fail(*args: Any) -> None:
        raise FileNotFoundError("put_lease.lua")

    monkeypatch.setattr(worker.door, "_listen", fail)
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(worker.door.run(), 5)
    assert raised.group_contains(FileNotFoundError)
    assert worker.door.health.ok
