"""Retries: transient errors are retried, on every available Redis version; others are raised."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from mode.utils.logging import ExtensionFormatter
from redis import exceptions
from redis.asyncio import Redis

from stream_app.embedded import services
from stream_app.runtime import retry
from stream_app.runtime.log_throttle import MAX_SECONDS, LogThrottle, RepeatFilter
from stream_app.runtime.retry import Health, is_transient, reason, retry_forever
from stream_app.store.state import QuestionRecord
from stream_app.store.store import StreamStore
from tests.ingest.test_tokens import assert_holds, site
from tests.support.fakes import until

Fresh = Callable[[str], str]
IN_A_SCRIPT = (
    "Error running script (call to f_a914): @user_script:12: @user_script: 12: -{} some words"
)
CODES = ["OOM", "READONLY", "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOSCRIPT"]
SERVERS = {version: path for path, version in services.redis_servers().items()}


@pytest.fixture(params=SERVERS, ids=lambda version: "v" + ".".join(map(str, version)))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[services.Service]:
    """Every available version of Redis."""
    with services.redis(tmp_path / "redis", executable=SERVERS[request.param]) as service:
        yield service


@pytest.fixture
async def redis(server: services.Service) -> AsyncIterator[Redis]:
    """A client of it."""
    async with Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without pauses."""
    monkeypatch.setattr(retry, "BACKOFF_SECONDS", (0.01,))


# -- what passes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("said", ["{} some words", IN_A_SCRIPT])
def test_a_state_of_redis_passes_wherever_it_is_named(code: str, said: str) -> None:
    error = exceptions.ResponseError(said.format(code))
    assert is_transient(error)
    annotated = f"Command # 1 (EVALSHA x) of pipeline caused error: {error.args}"
    assert is_transient(exceptions.ResponseError(annotated))


@pytest.mark.parametrize(
    "said",
    ["WRONGTYPE Operation against a key", "ERR unknown command 'OOM'", "NOPERM this user",
     "Error running script (call to f_1): @user_script:1: WRONGTYPE", "NOAUTH", "",
     "Command # 1 (SET a -OOM x) of pipeline caused error: ('WRONGTYPE Operation',)",
     "Command # 1 (SET of pipeline caused error: -OOM x) of pipeline caused error: ('ERR no',)"],
)  # fmt: skip
def test_what_was_asked_wrongly_is_raised(said: str) -> None:
    assert not is_transient(exceptions.ResponseError(said))


@pytest.mark.parametrize(
    ("error", "is_state"),
    [(ConnectionResetError(), True), (TimeoutError(), True), (OSError(24, "Too many"), True),
     (OSError(113, "No route"), True), (exceptions.ConnectionError("max number of clients"), True),
     (FileNotFoundError("x.lua"), False), (PermissionError("x"), False),
     (IsADirectoryError("x"), False), (ValueError(), False), (exceptions.DataError(), False)],
)  # fmt: skip
def test_a_missing_file_is_not_redis_away(error: Exception, is_state: bool) -> None:
    assert is_transient(error) == is_state


async def test_what_does_not_pass_is_raised_at_once() -> None:
    health, calls = Health(), []

    async def call() -> None:
        calls.append(1)
        raise FileNotFoundError("commit.lua")

    with pytest.raises(FileNotFoundError):
        await retry_forever(health, "ingest", call)
    assert len(calls) == 1 and health.ok


async def test_the_words_of_a_command_are_not_in_the_reason(redis: Redis) -> None:
    await redis.set("k", "x")
    async with redis.pipeline(transaction=False) as pipe:
        pipe.hset("k", "secret words", 1)
        with pytest.raises(exceptions.ResponseError) as raised:
            await pipe.execute()
    assert "secret" in str(raised.value) and "secret" not in reason(raised.value)
    assert not is_transient(raised.value)


# -- what waits -----------------------------------------------------------------------------------


def away() -> tuple[Callable[[], Awaitable[None]], asyncio.Event]:
    """A call that fails until the event is set."""
    back = asyncio.Event()

    async def call() -> None:
        if not back.is_set():
            raise exceptions.ConnectionError("away")

    return call, back


@pytest.mark.guarantee("Redis outages")
async def test_one_that_goes_on_does_not_clear_the_others(hurried: None) -> None:
    health, (one, back), (other, stays) = Health(), away(), away()
    waiting = [asyncio.create_task(retry_forever(health, "query", call)) for call in (one, other)]
    await until(lambda: len(health._retrying) == 2)
    back.set()
    await waiting[0]
    await retry_forever(health, "query", one)
    assert health.retrying == {"query": "away"} and not health.ok
    stays.set()
    await waiting[1]
    assert health.ok and health.retrying == {}


@pytest.mark.guarantee("Redis outages")
async def test_one_that_is_cancelled_waits_no_more(hurried: None) -> None:
    health, (call, _) = Health(), away()
    task = asyncio.create_task(retry_forever(health, "query", call))
    await until(lambda: not health.ok)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert health.ok


async def test_one_that_is_cancelled_as_its_try_fails_ends(hurried: None) -> None:
    async def call() -> None:
        cast(Any, asyncio.current_task()).cancel()
        with suppress(asyncio.CancelledError):  # as `asyncio.wait_for` does when it is done, too
            await asyncio.sleep(0)
        raise exceptions.ConnectionError("away")

    health = Health()
    async with asyncio.timeout(5):
        task = asyncio.create_task(retry_forever(health, "query", call))
        [ended] = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError)
    assert health.ok


@pytest.mark.guarantee("Redis outages")
def test_a_night_without_redis_is_a_hundred_lines_and_says_how_many_tries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = [0.0]
    health = Health(lambda: clock[0])
    with caplog.at_level(logging.INFO, "xl3m"), health.track("ingest") as retrying:
        tries = 0
        while clock[0] < 8 * 3600:
            clock[0] += retrying.failed(exceptions.ConnectionError("away"))
            tries += 1
        lines = [r.getMessage() for r in caplog.records]
        assert lines[0] == "ingest waits for Redis: away; next try in 0.1 s"
        assert 90 < len(lines) < 110
        told = sum(int(line.split("(")[1].split()[0]) for line in lines if "(" in line)
        assert tries - 70 < told + len(lines) <= tries
    assert caplog.records[-1].getMessage() == f"ingest continues after {clock[0]:.0f} s"


def test_a_redis_that_comes_and_goes_is_not_a_line_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = [0.0]
    health = Health(lambda: clock[0])
    for _ in range(10_000):
        with health.track("ingest") as retrying:
            clock[0] += retrying.failed(exceptions.OutOfMemoryError("full"))
    assert 5 < len(caplog.records) < 20
    clock[0] += 60
    with health.track("ingest") as retrying:
        retrying.failed(exceptions.ConnectionError("away"))
    assert caplog.records[-1].getMessage().startswith("ingest waits for Redis: away")


def test_lines_come_ever_more_rarely_and_none_is_lost_count_of() -> None:
    clock = [0.0]
    sparing, said = LogThrottle(lambda: clock[0]), list[tuple[float, int]]()
    for second in range(4000):
        clock[0] = float(second)
        if (omitted := sparing.due()) is not None:
            said.append((clock[0], omitted))
    times = [at for at, _ in said]
    assert times[:4] == [0, 5, 15, 35] and times[-1] - times[-2] == MAX_SECONDS
    assert sum(n for _, n in said) + len(said) == times[-1] + 1


def test_a_library_that_repeats_itself_is_cut_short_and_others_are_not() -> None:
    clock = [0.0]
    repeats = RepeatFilter(lambda: clock[0])

    def goes_through(name: str, message: str, level: int = logging.ERROR) -> str | None:
        record = logging.LogRecord(name, level, "", 0, message, (1,), None)
        if not repeats.filter(record):
            return None
        ExtensionFormatter()._format_args(record)  # as Faust's log does
        return record.getMessage()

    def lines(count: int) -> list[str]:
        clock[0] += 1
        return [s for _ in range(count) if (s := goes_through("asyncio", "no accept %d"))]

    assert len(lines(1000)) == 6
    clock[0] += 10
    assert lines(1) == ["no accept 1 (994 lines like this were omitted)"]
    assert len([1 for _ in range(1000) if goes_through("xl3m", "%d")]) == 1000
    assert len([1 for _ in range(1000) if goes_through("asyncio", "%d", logging.INFO)]) == 1000
    assert goes_through("aiokafka", "no accept %d") and goes_through("asyncio", "another %d")
    clock[0] += 3 * MAX_SECONDS
    assert len(lines(10)) == 6
    for i in range(1000):
        goes_through("asyncio", f"{i} %d")
    assert len(repeats.kinds) <= 256


# -- on each Redis --------------------------------------------------------------------------------


async def full(redis: Redis) -> None:
    """Set a memory limit, so that Redis rejects writes."""
    await redis.config_set("maxmemory", 1)


async def roomy(redis: Redis) -> None:
    await redis.config_set("maxmemory", 0)


@pytest.mark.guarantee("Redis outages")
async def test_a_full_redis_is_waited_for_and_nothing_is_lost(
    redis: Redis, fresh: Fresh, hurried: None
) -> None:
    here = await site(StreamStore(redis, health=Health()), fresh("topic"), 0)
    events = here.lines(*(f"line {i} of the hall\n" for i in range(12)))
    await here.ingest.apply(events[:4])
    await full(redis)
    applying = asyncio.create_task(here.ingest.apply(events[4:]))
    await until(lambda: not here.ingest.health.ok)
    tried = here.ingest.health
    assert set(tried.retrying) == {"commit"} and not applying.done()
    await roomy(redis)
    await asyncio.wait_for(applying, 20)
    assert tried.ok and here.offsets == [*range(12)]
    await assert_holds(here, "".join(f"line {i} of the hall\n" for i in range(12)))


@pytest.mark.guarantee("Redis outages")
async def test_each_kind_of_write_waits_for_a_full_redis(redis: Redis, hurried: None) -> None:
    health = Health()
    store = StreamStore(redis, health=health)
    await full(redis)
    steps: list[Coroutine[Any, Any, Any]] = [
        store.register_streams([("s", "t/0")]),
        store.partitions.draw_epoch("t/0"),
        store.questions.ask("s", "q", QuestionRecord("q?")),
        store.leases.replace("q", b"token", b"answer", 1000),
    ]
    tasks = [asyncio.create_task(step) for step in steps]
    await until(lambda: len(health.retrying) == len(steps))
    assert not any(task.done() for task in tasks)
    await roomy(redis)
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert health.ok and await store.streams() == ["s"]


@pytest.mark.guarantee("Redis outages")
async def test_a_redis_that_became_a_replica_is_waited_for(
    redis: Redis, fresh: Fresh, hurried: None
) -> None:
    health = Health()
    store = StreamStore(redis, health=health)
    await store.register_streams([("s", "")])  # the script is known
    await redis.replicaof("127.0.0.1", "1")  # of an unreachable master
    listing = asyncio.create_task(store.register_streams([("t", "")]))
    drawing = asyncio.create_task(store.partitions.draw_epoch("t/0"))
    await until(lambda: len(health.retrying) == 2)
    assert all("read only replica" in why for why in health.retrying.values())
    await redis.replicaof("NO", "ONE")
    await asyncio.wait_for(asyncio.gather(listing, drawing), 20)
    assert health.ok and await store.streams() == ["s", "t"]


async def _endless(redis: Any) -> None:
    await redis.eval("while true do end", 0)


async def _is_busy(redis: Redis) -> bool:
    try:
        return not await redis.ping()
    except exceptions.ResponseError as error:
        return "BUSY" in str(error)


@pytest.mark.guarantee("Redis outages")
async def test_a_redis_that_runs_a_long_script_is_waited_for(
    redis: Redis, server: services.Service, hurried: None
) -> None:
    await redis.config_set("lua-time-limit", 20)
    async with Redis.from_url(server.url) as busy:
        endless: asyncio.Task[Any] = asyncio.create_task(_endless(busy))
        await until(lambda: _is_busy(redis))
        health = Health()
        store = StreamStore(redis, health=health)
        drawing = asyncio.create_task(store.partitions.draw_epoch("t/0"))
        await until(lambda: not health.ok or drawing.done())
        assert "BUSY" in health.retrying["draw epoch"]
        await redis.script_kill()
        assert await asyncio.wait_for(drawing, 20) == 1
        with pytest.raises(exceptions.ResponseError):
            await endless


@pytest.mark.guarantee("Redis outages")
async def test_scripts_that_were_forgotten_are_sent_again(redis: Redis) -> None:
    store = StreamStore(redis)
    await store.register_streams([("s", "")])
    await redis.script_flush()
    await store.register_streams([("t", "")])
    assert await store.streams() == ["s", "t"]


@pytest.mark.guarantee("Redis outages")
async def test_a_redis_with_too_many_clients_is_waited_for(
    redis: Redis, server: services.Service, hurried: None
) -> None:
    await redis.ping()
    await redis.config_set("maxclients", 1)
    async with Redis.from_url(server.url) as late:
        health = Health()
        store = StreamStore(late, health=health)
        listing = asyncio.create_task(store.register_streams([("s", "")]))
        await until(lambda: not health.ok or listing.done())
        assert "clients" in health.retrying["register streams"]
        await redis.config_set("maxclients", 100)
        await asyncio.wait_for(listing, 20)
        assert await store.streams() == ["s"]


@pytest.mark.guarantee("Redis outages")
async def test_connections_that_break_are_waited_for(
    redis: Redis, server: services.Service, hurried: None
) -> None:
    health = Health()
    store = StreamStore(redis, health=health)
    async with Redis.from_url(server.url) as killer:
        for i in range(20):
            killing = killer.client_kill_filter(_type="normal", skipme=True)
            await asyncio.gather(killing, store.register_streams([(f"s{i}", "")]))
    assert len(await store.streams()) == 20 and health.ok
