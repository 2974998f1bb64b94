"""Metrics say what the worker's state says; it is ready when there is no reason not to be."""

import asyncio
import json
import math
import random
import re
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from stream_app.app import create_app
from stream_app.embedded import services
from stream_app.embedded.process import free_port
from stream_app.errors import SettingsError
from stream_app.formats.notes import Notes
from stream_app.ingest.decoder import TokenDecoder
from stream_app.kafka.dead_letters import dead_letter_sender
from stream_app.monitoring import memory, readiness
from stream_app.monitoring.connections import max_connections
from stream_app.monitoring.http import MonitoringServer, check_port
from stream_app.monitoring.memory import MemorySampler
from stream_app.monitoring.metrics import Metrics
from stream_app.monitoring.readiness import Readiness
from stream_app.queries.answering import Answering
from stream_app.queries.prefetch import PromptPrefetcher
from stream_app.requests import Query
from stream_app.runtime.retry import Health
from stream_app.scoring.scorer import Scorer
from stream_app.scoring.streams import stream_totals
from stream_app.settings import Settings
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.state import Commit, QuestionRecord
from stream_app.store.store import StreamStore
from tests.support.fakes import PLENTY, Event, HashEngine, Message, running, until
from tests.support.workers import site

Fresh = Callable[[str], str]


class World:
    """A worker without Kafka, and its metrics."""

    def __init__(self, redis: Redis) -> None:
        self.engine, self.health = HashEngine(), Health()
        self.store = StreamStore(redis, health=self.health)
        self.scoring = Scorer(
            self.engine,
            self.store,
            PLENTY,
            on_step=lambda fill, seconds: self.metrics.stepped(fill, seconds),
        )
        self.weights = MemorySampler(self.store, self.scoring.streams)
        self.metrics = Metrics(self.scoring, self.health, self.weights)
        warming = PromptPrefetcher(self.engine, self.store, self.scoring)
        self.answering = Answering(
            Settings(),
            self.engine,
            self.store,
            self.scoring,
            warming,
            on_answer=self.metrics.answered,
        )

    async def grow(self, stream: str, segments: int, gaps: int = 0) -> None:
        """So many segments more of a stream that is this worker's."""
        base = await self.store.load(stream)
        width, count = self.engine.method.segment_tokens, segments + (base.cursor.version == 0)
        text = "".join(f"{i}".rjust(width - 1, ".") + "\n" for i in range(count))
        tail, new = self.engine.segmenter().push(base.tail, text)
        assert len(new) == segments
        offset = base.cursor.version + 1
        (state,) = await self.store.commit(
            [Commit(stream, base, new, tail, "t/0", 1, offset, gaps)]
        )
        assert state is not None
        self.scoring.streams.on_commit(stream, state.cursor)
        await self.scoring.streams.refresh()

    async def set(self, stream: str, question: str = "q?") -> None:
        """A standing question."""
        qid = self.scoring.question_id(question)
        await self.store.questions.ask(stream, qid, QuestionRecord(question))
        self.scoring.streams.on_questions_changed(stream)
        await self.scoring.streams.refresh()

    def value(self, name: str, **labels: str) -> float:
        """A metric as it would be scraped now."""
        value = self.metrics.registry.get_sample_value(name, labels)
        assert value is not None, name
        return value


@pytest.fixture
def world(redis_client: Redis) -> World:
    """One that nothing has happened in."""
    return World(redis_client)


async def test_lag_falls_to_nothing_as_steps_are_taken(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.set(stream)
    await world.grow(stream, 30)
    assert world.value("xl3m_lag_tokens") == 30 * world.engine.method.segment_tokens
    assert world.value("xl3m_min_coverage_ratio") == 0
    steps = 0
    while await world.scoring.step():
        steps += 1
    assert steps > 1
    assert world.value("xl3m_lag_tokens") == 0
    assert world.value("xl3m_min_coverage_ratio") == 1
    assert world.value("xl3m_step_seconds_count") == steps
    assert world.value("xl3m_step_fill_ratio_count") == steps
    assert 0 < world.value("xl3m_step_fill_ratio_sum") <= 1.25 * steps


async def test_coverage_is_that_of_the_worst_question_of_an_owned_stream(
    world: World, fresh: Fresh
) -> None:
    assert math.isnan(world.value("xl3m_min_coverage_ratio"))
    one, other = fresh("stream"), fresh("stream")
    await world.set(one)
    await world.grow(one, 4)
    while await world.scoring.step():
        pass
    await world.set(one, "late?")
    await world.grow(other, 3)
    assert world.value("xl3m_streams_tracked") == 2
    assert world.value("xl3m_min_coverage_ratio") == 0
    world.scoring.streams.tracked[one].waiters = 1
    world.scoring.streams.disown([one])
    assert world.value("xl3m_streams_tracked") == 2
    assert math.isnan(world.value("xl3m_min_coverage_ratio"))


async def test_gaps_are_those_of_owned_streams(world: World, fresh: Fresh) -> None:
    one, other = fresh("stream"), fresh("stream")
    await world.grow(one, 1, gaps=3)
    await world.grow(one, 1, gaps=2)
    await world.grow(other, 1, gaps=1)
    assert world.value("xl3m_missing_offsets") == 6
    world.scoring.streams.tracked[one].waiters = 1
    world.scoring.streams.disown([one])
    assert world.value("xl3m_streams_tracked") == 2
    assert world.value("xl3m_missing_offsets") == 1


@pytest.mark.guarantee("Logs and metrics")
async def test_sums_are_what_a_walk_over_all_streams_gives(world: World, fresh: Fresh) -> None:
    names, rng = [fresh("stream") for _ in range(5)], random.Random(1)
    streams, most = world.scoring.streams, 0
    for turn in range(60):
        stream = rng.choice(names)
        match turn % 5:
            case 0 | 1:
                await world.grow(stream, rng.randint(1, 5), gaps=rng.randint(0, 2))
            case 2:
                await world.set(stream, rng.choice(["q?", "r?"]))
            case 3:
                streams.disown([stream])
            case 4:
                await world.scoring.step()
        walked = [stream_totals(w) for w in streams.tracked.values() if w.owned]
        assert streams.totals.lag == sum(each.lag for each in walked)
        assert streams.totals.missing_offsets == sum(each.missing_offsets for each in walked)
        most = max(most, streams.totals.lag)
        least = min((s.coverage for s in walked if s.coverage == s.coverage), default=math.nan)
        assert streams.totals.coverage() == pytest.approx(least, nan_ok=True)
    assert most > 0


@pytest.mark.guarantee("Logs and metrics")
async def test_memory_is_judged_by_a_few_streams_at_a_time(
    world: World, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [fresh("stream") for _ in range(4)]
    for i, stream in enumerate(names):
        await world.set(stream)
        await world.grow(stream, 5 + 20 * i)
    sizes = [(await world.store.memory_usage(stream))[0] for stream in names]
    assert sizes == sorted(sizes) and sizes[0] > 0
    assert world.value("xl3m_redis_memory_bytes") == 0
    monkeypatch.setattr(memory, "COMMANDS", 12)  # two streams of eleven
    await world.weights.sample()
    assert [*world.weights.of] == names[:2]
    assert world.value("xl3m_redis_memory_bytes") == 2 * sum(sizes[:2])
    await world.weights.sample()
    assert world.value("xl3m_redis_memory_bytes") == sum(sizes)
    assert world.value("xl3m_redis_largest_stream_bytes") == sizes[-1]
    await world.weights.sample()
    assert [*world.weights.of] == names[2:] + names[:2]
    world.scoring.streams.disown(names[1:])
    assert (
        world.value("xl3m_redis_memory_bytes")
        == world.value("xl3m_redis_largest_stream_bytes")
        == sizes[0]
    )


async def test_a_stream_weighs_what_its_keys_do(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.set(stream)
    await world.grow(stream, 9)
    while await world.scoring.step():
        pass
    redis = world.store.redis
    names = [name async for name in redis.scan_iter(keys.of_stream(stream))]
    assert len(names) == 8
    size, commands = await world.store.memory_usage(stream)
    assert size == sum([await redis.memory_usage(name) for name in names])
    assert commands == 2 + 4 + 5


async def test_queries_are_counted_by_what_became_of_them(world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.grow(stream, 5)
    await world.answering.answer(Query("1", fresh("unknown"), "q?", 0))
    await world.answering.answer(Query("2", stream, "q?", 0))
    async with running(world.scoring):
        await world.answering.answer(Query("3", stream, "q?", 30))
    for outcome in ("refused", "partial", "complete"):
        assert world.value("xl3m_queries_total", outcome=outcome) == 1
    assert world.value("xl3m_query_seconds_count") == 3


async def test_a_dead_letter_counts_when_it_is_sent(world: World) -> None:
    sent: list[bytes] = []

    async def send(key: bytes | None, value: bytes) -> None:
        assert world.value("xl3m_dead_letters_total") == len(sent)
        sent.append(value)

    bury = dead_letter_sender(send, world.metrics.dead_letter)
    for offset in range(3):
        await bury(Event(Message("t", 0, offset, None, None, b"?")), "why")
    assert world.value("xl3m_dead_letters_total") == 3


async def test_what_decoding_tells_is_counted(world: World) -> None:
    metrics = world.metrics
    notes = Notes(metrics.skipped, metrics.missing_key_field, metrics.unparsed_time)
    settings = Settings(input_format="json", key_field="host")
    decoder = TokenDecoder(settings, lambda ids: "", notes)
    for value in (b'{"text": ""}', b"null", b'{"text": "x"}', b'{"text": "x", "time": "?"}', b"[]"):
        decoder.decode(b"key", value, source="t/0", time_ms=0)
    assert world.value("xl3m_skipped_records_total") == 2
    assert world.value("xl3m_missing_key_fields_total") == 2
    assert world.value("xl3m_unparsed_times_total") == 1


async def test_what_waits_is_counted(world: World) -> None:
    assert world.value("xl3m_redis_retrying_operations") == 0
    with world.health.track("scoring") as retry:
        retry.failed(OSError("away"))
        assert world.value("xl3m_redis_retrying_operations") == 1
    assert world.value("xl3m_redis_retrying_operations") == 0


async def test_two_workers_of_a_process_count_apart(
    world: World, redis_client: Redis, fresh: Fresh
) -> None:
    other = World(redis_client)
    await world.grow(fresh("stream"), 2)
    world.metrics.dead_letter()
    assert world.value("xl3m_streams_tracked") == 1
    assert other.value("xl3m_streams_tracked") == other.value("xl3m_dead_letters_total") == 0


# -- the door --------------------------------------------------------------------------------


def http(
    reasons: dict[str, str], registry: CollectorRegistry | None = None, port: int = 0
) -> MonitoringServer:
    async def asked() -> dict[str, str]:
        return reasons

    return MonitoringServer("127.0.0.1", port, registry or CollectorRegistry(), asked)


@pytest.fixture
async def reasons() -> dict[str, str]:
    """Why the door's worker is not ready; there is no reason at first."""
    return {}


@pytest.fixture
async def door(world: World, reasons: dict[str, str]) -> AsyncIterator[Any]:
    """Asks the door of that world."""
    async with TestClient(TestServer(http(reasons, world.metrics.registry).app())) as client:
        yield client


async def test_metrics_name_no_stream(door: Any, world: World, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.set(stream)
    await world.grow(stream, 5)
    await world.scoring.step()
    reply = await door.get("/metrics")
    text = await reply.text()
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    assert set(re.findall(r'[{,](\w+)="', text)) == {"le", "outcome"}
    assert stream not in text and "q?" not in text
    assert "xl3m_streams_tracked 1.0" in text.splitlines()


async def test_the_documentation_names_every_metric(door: Any) -> None:
    text = await (await door.get("/metrics")).text()
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    families = re.findall(r"^# TYPE (xl3m_\w+) (?!gauge$)|^# TYPE (xl3m_\w+) gauge", text, re.M)
    served = {name for pair in families for name in pair if name and "_created" not in name}
    named = set(re.findall(r"`(xl3m_\w+)[{`]", page))
    assert served == named


async def test_health_is_there_while_the_worker_is_not_ready(
    door: Any, reasons: dict[str, str]
) -> None:
    assert (await door.get("/readyz")).status == 200
    reasons["partitions"] = "not assigned now"
    reply = await door.get("/readyz")
    assert reply.status == 503
    assert await reply.json() == {"ready": False, "reasons": reasons}
    assert (await door.get("/healthz")).status == 200
    assert (await door.get("/")).status == 404


async def test_it_serves_until_it_is_cancelled() -> None:
    port = free_port()
    service = http({}, port=port)
    async with aiohttp.ClientSession() as session, running(service):
        await until(lambda: answers(session, port))
    async with aiohttp.ClientSession() as session:
        assert not await answers(session, port)
    assert free_port(port) == port


async def test_a_port_that_is_taken_is_named() -> None:
    port = free_port()
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)
    async with taken:
        with pytest.raises(SettingsError, match=rf"XL3M_HTTP_PORT.*{port}"):
            await http({}, port=port).run()


@pytest.mark.guarantee("Redis outages")
async def test_a_worker_whose_port_is_taken_ends_before_it_joins_and_says_which(
    broker: services.Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    port = free_port()
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port)
    async with taken, site(broker.url, redis_url, tmp_path, fresh, http_port=port) as here:
        worker = await here.start()
        assert await asyncio.wait_for(worker.wait(), 60) == 2
    (line,) = (tmp_path / "workers.log").read_text().splitlines()
    assert line.startswith(f"xl3m: XL3M_HTTP_PORT: cannot listen on 127.0.0.1:{port} (")


async def test_a_port_that_was_looked_at_can_be_had_and_one_that_is_none_is_named() -> None:
    port = free_port()
    await check_port("127.0.0.1", port)
    await check_port("127.0.0.1", 0)
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", port):
        with pytest.raises(SettingsError, match="XL3M_HTTP_PORT"):
            await check_port("127.0.0.1", port)
    with pytest.raises(SettingsError, match="XL3M_HTTP_PORT"):
        await check_port("203.0.113.1", port)  # an address of no machine


async def answers(session: aiohttp.ClientSession, port: int, path: str = "healthz") -> bool:
    """Whether it says 200."""
    try:
        async with session.get(f"http://127.0.0.1:{port}/{path}") as reply:
            return reply.status == 200
    except aiohttp.ClientConnectionError:
        return False


# -- who wears it out ------------------------------------------------------------------------

SERVE = """
import asyncio, logging, resource, sys
from prometheus_client import CollectorRegistry
from stream_app.monitoring.http import MonitoringServer
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
logging.basicConfig()
async def ready():
    return {}
asyncio.run(MonitoringServer("127.0.0.1", int(sys.argv[1]), CollectorRegistry(), ready).run())
"""
HALF = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: "


async def half_sent(port: int) -> asyncio.StreamWriter:
    """A connection that sends the beginning of a request."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HALF)
    await writer.drain()
    return writer


@pytest.mark.guarantee("Logs and metrics")
async def test_half_sent_requests_take_no_answer_from_others(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as output:
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVE, str(port), stdout=output, stderr=output
        )
    async with aiohttp.ClientSession() as session:
        try:
            await until(lambda: answers(session, port))
            held = [await half_sent(port) for _ in range(240)]
            for path in ("healthz", "readyz", "metrics") * 20:
                assert await answers(session, port, path), path
            descriptors = list(Path(f"/proc/{server.pid}/fd").iterdir())
            assert len(descriptors) < 32
            for writer in held:
                writer.close()
        finally:
            server.terminate()
            await server.wait()
    assert log.read_text() == ""


@pytest.mark.guarantee("Logs and metrics")
async def test_one_connection_too_many_ends_the_oldest_idle_one() -> None:
    service = http({}, port=free_port())
    service.connections.limit = 3
    async with running(service), aiohttp.ClientSession() as session:
        await until(lambda: answers(session, service.port))
        held = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(3)]
        await until(lambda: len(service.connections.open) == 3)
        assert await answers(session, service.port)
        assert await held[0][0].read() == b""
        assert await answers(session, service.port)
        assert len(service.connections.open) <= 3
        for _, writer in held:
            writer.close()


@pytest.mark.guarantee("Logs and metrics")
async def test_a_connection_ends_after_a_while_whatever_it_does() -> None:
    service = http({}, port=free_port())
    service.connections.seconds = 0.05
    async with running(service), aiohttp.ClientSession() as session:
        await until(lambda: answers(session, service.port))
        writer = await half_sent(service.port)
        await until(lambda: not service.connections.open)
        writer.close()


async def test_a_request_under_way_is_not_the_one_to_go() -> None:
    service, go = http({}, port=free_port()), asyncio.Event()
    service.connections.limit = 2

    async def slow() -> dict[str, str]:
        await go.wait()
        return {}

    service.reasons = slow
    async with running(service), aiohttp.ClientSession() as session:
        await until(lambda: answers(session, service.port))
        asked = asyncio.create_task(answers(session, service.port, "readyz"))
        await until(lambda: service.connections.busy)
        for _ in range(5):
            assert await answers(session, service.port)
        go.set()
        assert await asked
    assert not service.connections.busy


def test_connections_have_an_eighth_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, limit in ((64, 8), (256, 32), (1024, 64), (4, 1), (resource.RLIM_INFINITY, 64)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert max_connections() == limit


# -- readiness -------------------------------------------------------------------------------


async def test_a_worker_is_ready_when_nothing_is_lacking(
    redis_client: Redis, broker: services.Service
) -> None:
    health, assigned = Health(), [False]
    ready = Readiness(
        Settings(broker=broker.url), StreamStore(redis_client), health, lambda: assigned[0]
    )
    assert await ready.reasons() == {"partitions": "not assigned now"}
    assigned[0] = True
    assert await ready.reasons() == {}
    with health.track("scoring") as retry:
        retry.failed(OSError("Redis is full"))
        assert await ready.reasons() == {"step scoring": "waits: Redis is full"}


@pytest.mark.guarantee("Logs and metrics")
async def test_however_many_ask_at_once_the_services_are_asked_once(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, kafka = list[str](), asyncio.Event()
    ready = Readiness(Settings(), StreamStore(redis_client), Health(), lambda: True)

    async def ask() -> str:
        asked.append("kafka")
        await kafka.wait()
        return "away" if len(asked) == 1 else ""

    monkeypatch.setattr(ready, "_kafka", ask)
    all_ = [asyncio.create_task(ready.reasons()) for _ in range(100)]
    await until(lambda: asked)
    all_[0].cancel()
    kafka.set()
    assert await asyncio.gather(*all_[1:]) == [{"kafka": "away"}] * 99
    assert await ready.reasons() == {"kafka": "away"} and len(asked) == 1
    monkeypatch.setattr(readiness, "FRESH_SECONDS", 0.0)
    assert await ready.reasons() == {} and len(asked) == 2


async def test_services_out_of_reach_are_reasons_without_a_password() -> None:
    nowhere = "redis://user:secret@127.0.0.1:1"
    settings = Settings(broker="kafka://127.0.0.1:1", redis=nowhere)
    async with Redis.from_url(nowhere) as redis:
        reasons = await Readiness(settings, StreamStore(redis), Health(), lambda: True).reasons()
    assert set(reasons) == {"redis", "kafka"}
    assert "secret" not in json.dumps(reasons)


# -- a whole worker --------------------------------------------------------------------------


@pytest.mark.parametrize("port", [0, 1])
def test_a_worker_has_the_door_only_where_a_port_is_set(port: int) -> None:
    app = create_app(Settings(http_port=port), HashEngine())
    children: list[Any] = list(app._children)
    assert [type(child.service) for child in children] == [MonitoringServer] * bool(port)


async def test_a_running_worker_is_ready_and_ends_cleanly(
    broker: services.Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    port = free_port()
    async with (
        site(broker.url, redis_url, tmp_path, fresh, http_port=port) as here,
        aiohttp.ClientSession() as session,
    ):
        worker = await here.start()
        await here.until(lambda: answers(session, port, "readyz"))
        assert await answers(session, port)
        async with session.get(f"http://127.0.0.1:{port}/metrics") as reply:
            assert "xl3m_lag_tokens 0.0" in (await reply.text()).splitlines()
        began = time.monotonic()
        assert await here.stop(worker) == 0
        assert time.monotonic() - began < 30
        assert "Traceback" not in (tmp_path / "workers.log").read_text()
