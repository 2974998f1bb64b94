"""Key prefixes: two groups on one Redis never read, receive or delete each other's data."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.client import client
from stream_app.embedded import services
from stream_app.errors import SettingsError
from stream_app.events import encode
from stream_app.scoring.prefilter import Prefilter
from stream_app.settings import Settings
from stream_app.settings.checks import redis_prefix
from stream_app.store.keys import Keys
from stream_app.store.rebuild_apply import apply, find_keys
from stream_app.store.rebuild_plan import RetainedOffsets, plan
from stream_app.store.schema import check_schema, delete_old_schema, ensure_schema
from stream_app.store.state import Commit, PositionUpdate, QuestionRecord
from stream_app.store.store import StreamStore
from tests.support.fakes import HashEngine, batch, running, until
from tests.support.pubsub import Worker, listening
from tests.support.searching import found_in
from tests.support.workers import Site, site
from tests.system.test_system import log_text

Fresh = Callable[[str], str]
NESTED = ["xl3m", "xl3m:b", "xl3m-b", "xl3m.b", "xl3m:b:c", "xl3", "b"]
PARTS = st.sampled_from(["a", "ab", "a-", ".", "_", "b", "streams", "claim", "v1", "1a", "answers"])
PREFIX = st.lists(PARTS, min_size=1, max_size=3).map(":".join)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
LINES = "".join(f"red {i} pump of hall {i % 7}\n" for i in range(40))
QUESTION = "which pump?"


def names_of(keys: Keys, stream: str, query_id: str, qid: str = "0" * 16) -> list[str]:
    """A name from every method of Keys."""
    return [
        keys.schema(), keys.streams(), keys.streams(stream), keys.partition(stream),
        *(make(stream) for make in (keys.log, keys.tail, keys.cursor, keys.questions)),
        *keys.question_keys(stream, qid, 1 << 17), keys.lease(query_id), keys.repeated(query_id),
        keys.query_channel(), keys.question_channel(),
        keys.answer_channel(query_id), keys.update_channel(stream),
    ]  # fmt: skip


@given(PREFIX, PREFIX, st.tuples(NAME, NAME), st.tuples(NAME, NAME))
def test_no_name_of_one_prefix_is_another_s(
    one: str, other: str, mine: tuple[str, str], theirs: tuple[str, str]
) -> None:
    assert redis_prefix(one) == one
    first, second = set(names_of(Keys(one), *mine)), set(names_of(Keys(other), *mine))
    assert (first == second) == (one == other)
    assert one == other or not first & second
    hostile = {f"{other}:query", f"{other}:schema", other.removeprefix(f"{one}:")}
    for name in hostile | set(theirs):
        assert one == other or not set(names_of(Keys(one), name, name)) & second


@pytest.mark.parametrize(
    "prefix",
    [":", "xl3m:", ":xl3m", "a::b", "a b", "a*", "a?", "a[b]", "a{b}", "ü", "x" * 65, "a\n",
     "a\\", "xl3m:1", "xl3m:0:b", "xl3m:answer", "xl3m:b:query", "a:question", "a:update:b",
     "a:schema"],
)  # fmt: skip
def test_a_prefix_that_could_be_taken_for_another_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="XL3M_PREFIX must"):
        Settings.from_env({"XL3M_PREFIX": prefix})


@pytest.mark.parametrize("prefix", [*NESTED, "x" * 64, "1", "answer", "prod:eu-1"])
def test_a_usable_prefix_is_taken(prefix: str) -> None:
    assert Settings.from_env({"XL3M_PREFIX": prefix}).prefix == prefix


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    """An empty Redis."""
    with services.redis(tmp_path / "redis") as service:
        async with Redis.from_url(service.url) as client:
            yield client


async def held(redis: Any, keys: Keys) -> dict[bytes, bytes]:
    """All keys of the prefix, without those of longer prefixes that begin with it."""
    begins, longer = f"{keys.prefix}:", [f"{each}:" for each in NESTED if each != keys.prefix]
    longer = [each for each in longer if each.startswith(begins)]
    names = [name.decode() async for name in redis.scan_iter()]
    mine = [n for n in names if n.startswith(begins) and not n.startswith(tuple(longer))]
    return {name: await redis.dump(name) for name in mine}


async def filled(redis: Redis, keys: Keys) -> StreamStore:
    """A stream with every kind of key, and the schema's version."""
    store = StreamStore(redis, keys=keys)
    await ensure_schema(redis, keys)
    tail, segments = batch(HashEngine(), LINES)
    await store.partitions.draw_epoch("t/0")
    await store.register_streams([("s", "t/0")])
    await store.commit([Commit("s", await store.load("s"), segments, tail, "t/0", 1, 3)])
    await store.partitions.move([PositionUpdate("t/0", 1, None, 3, 0)])
    await store.questions.ask("s", "q", QuestionRecord(QUESTION))
    return store


async def test_what_one_does_to_all_its_streams_leaves_the_others_alone(redis: Redis) -> None:
    stores = [await filled(redis, Keys(prefix)) for prefix in NESTED]
    for store in stores:
        before = {p: await held(redis, Keys(p)) for p in NESTED if p != store.keys.prefix}
        assert await store.streams() == ["s"]
        assert set(await find_keys(store)) == set(await find_keys(store, "s"))
        retained = {"t/0": RetainedOffsets(0, 3)}
        planned = await plan(store, "s", retained)
        assert planned and planned.offsets == 3
        await apply(store, planned, retained, await find_keys(store))
        assert (await store.load("s")).cursor.rebuilt == 1
        await redis.set(store.keys.schema(), 0)
        await redis.set(f"{store.keys.of_schema(0)}:{{s}}:log", 1)
        assert await delete_old_schema(redis, store.keys) == 1
        assert {p: await held(redis, Keys(p)) for p in before} == before


async def test_a_newer_schema_of_one_is_none_of_the_other(redis: Redis) -> None:
    await redis.set(Keys("xl3m:b").schema(), 7)
    assert await check_schema(redis, Keys("xl3m")) is None
    await ensure_schema(redis, Keys("xl3m"))


async def test_prefilter_and_memory_sampler_read_the_keys_of_their_own_prefix(redis: Redis) -> None:
    store, url = await filled(redis, Keys("xl3m:b")), _url(redis)
    assert await found_in(Prefilter(url, store.keys), "s", QUESTION, range(9))
    assert await found_in(Prefilter(url, Keys("xl3m")), "s", QUESTION, range(9)) == []
    assert (await store.memory_usage("s"))[0] > 0
    assert (await StreamStore(redis).memory_usage("s"))[0] == 0


def _url(redis: Redis) -> str:
    where = redis.connection_pool.connection_kwargs
    return f"redis://{where['host']}:{where['port']}/0"


# -- queries ---------------------------------------------------------------------------------


async def test_a_query_goes_to_its_group_alone(redis: Redis) -> None:
    workers = []
    for prefix in ("xl3m", "xl3m:b"):
        await filled(redis, Keys(prefix))
        workers.append(Worker(redis, prefix))
    mine, theirs = workers
    async with running(*(service for w in workers for service in w.services)):
        await until(lambda: listening(redis, 1))
        await until(lambda: client.workers(theirs.store))
        for _ in range(3):
            said = [each async for each in client.ask(theirs.store, "s", QUESTION, 20)]
            assert said[-1]["type"] == "answer" and "error" not in said[-1]
    assert len(theirs.answered) == 3 and mine.answered == []
    claims = [name async for name in redis.scan_iter("*:query:*")]
    assert len(claims) == 3
    assert all(name.startswith(b"xl3m:b:2:query:") for name in claims)


async def test_changes_are_told_to_who_watches_that_group(redis: Redis) -> None:
    one, other = (StreamStore(redis, keys=Keys(prefix)) for prefix in ("xl3m", "xl3m:b"))
    updates = client.updates(one, "s")
    assert await anext(updates) == {}
    await other.publish([(other.keys.update_channel("s"), encode({"n": 1}))])
    await one.publish([(one.keys.update_channel("s"), encode({"n": 2}))])
    assert (await anext(updates))["n"] == 2
    await updates.aclose()  # type: ignore[attr-defined]


# -- workers and commands, on a real Kafka -----------------------------------------------------


@asynccontextmanager
async def commands_of(redis: Redis) -> AsyncIterator[list[bytes]]:
    """Every command that Redis receives during the block, as MONITOR prints it."""
    where, lines = redis.connection_pool.connection_kwargs, list[bytes]()
    reader, writer = await asyncio.open_connection(where["host"], where["port"])
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"

    async def read() -> None:
        while line := await reader.readline():
            lines.append(line)

    reading = asyncio.create_task(read())
    try:
        yield lines
        await redis.echo("the end")
        await until(lambda: any(b'"the end"' in line for line in lines[-3:]))
    finally:
        reading.cancel()
        writer.close()


async def xl3m(here: Site, *words: str) -> str:
    """The output of a command, which must succeed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stream_app", *words, env=here.environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.mark.guarantee("Pub/sub queries")
async def test_a_worker_and_every_command_keep_to_their_prefix(
    durable_broker: services.Service, redis: Redis, tmp_path: Path, fresh: Fresh
) -> None:
    await filled(redis, Keys())
    before = await held(redis, Keys())
    made = site(durable_broker.url, _url(redis), tmp_path, fresh, prefix="xl3m-b")
    async with commands_of(redis) as lines, made as here:
        await here.start()
        await here.send("questions", "s", QUESTION.encode())
        await here.send("tokens", "s", log_text(1, 60).encode())
        await here.until(lambda: _scored(here))
        assert (await xl3m(here, "ask", "s", QUESTION)).count("#")
        assert "s  " in await xl3m(here, "streams", "--memory")
        await xl3m(here, "doctor")
        assert "read again" in await xl3m(here, "rebuild", "--all")
    assert await held(redis, Keys()) == before
    used = b"".join(lines)
    assert b'"xl3m-b:2:{s}:log"' in used and b'"xl3m-b:query"' in used
    assert b'"xl3m-b:schema"' in used and b'"xl3m:' not in used


async def _scored(here: Site) -> bool:
    known = await client.describe(here.store, "s")
    return known["segments"] > 2 and any(q["coverage"] == 1.0 for q in known["questions"])
