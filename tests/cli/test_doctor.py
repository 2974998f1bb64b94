"""The doctor finds problems, reports each in one line, and changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.cli.doctor import (
    Finding,
    examine,
    kafka_findings,
    model_findings,
    redis_findings,
    run,
)
from stream_app.embedded import services
from stream_app.errors import SchemaError, SettingsError, UnreachableError
from stream_app.kafka.topics import TOPICS, ensure_topics, partition_counts, topic_names
from stream_app.settings import Settings
from stream_app.store.groups import note_group
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.keys import SCHEMA
from stream_app.store.schema import check_schema, ensure_schema
from tests.cli.test_main import xl3m
from tests.support import tiny
from tests.support.workers import fresh_topics

Fresh = Callable[[str], str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model's folder."""
    folder = tmp_path_factory.mktemp("model")
    tiny.save(tiny.make("llama"), folder)
    return str(folder)


@pytest.fixture
def topics(fresh: Fresh) -> dict[str, Any]:
    """Names of topics that do not exist yet."""
    return fresh_topics(fresh)


@pytest.fixture
async def empty(redis_url: str) -> AsyncIterator[tuple[str, Redis]]:
    """An empty database of the Redis, for keys that exist once per database."""
    url = f"{redis_url.rpartition('/')[0]}/9"
    async with Redis.from_url(url) as redis:
        await redis.flushdb()
        yield url, redis
        await redis.flushdb()


async def found(findings: AsyncIterator[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding async for finding in findings}


# -- Redis -----------------------------------------------------------------------------------


async def test_a_redis_that_keeps_what_it_is_given_is_well(tmp_path: Path) -> None:
    with services.redis(tmp_path, appendonly=True) as service:
        seen = await found(redis_findings(Settings(redis=service.url)))
    assert {finding.mark for finding in seen.values()} == {"ok"}
    assert "version" in seen["Redis"].message


async def test_a_redis_that_may_forget_is_a_failure_and_one_without_aof_a_warning(
    tmp_path: Path,
) -> None:
    with services.redis(tmp_path) as service:
        async with Redis.from_url(service.url) as redis:
            await redis.config_set("maxmemory-policy", "allkeys-lru")
        seen = await found(redis_findings(Settings(redis=service.url)))
    assert seen["Redis maxmemory-policy"].mark == "FAIL"
    assert "noeviction" in seen["Redis maxmemory-policy"].message
    assert seen["Redis appendonly"].mark == "WARN"


async def test_services_out_of_reach_are_named_without_a_password() -> None:
    nowhere = Settings(redis="redis://user:secret@127.0.0.1:1", broker="kafka://127.0.0.1:1")
    seen = await found(redis_findings(nowhere)) | await found(kafka_findings(nowhere))
    assert {what: finding.mark for what, finding in seen.items()} == {
        "Redis": "FAIL",
        "Kafka": "FAIL",
    }
    assert "secret" not in f"{seen}"


async def test_a_replica_and_a_cluster_are_failures_and_no_worker_starts_on_them(
    tmp_path: Path,
) -> None:
    with services.redis(tmp_path / "a") as one, services.redis(tmp_path / "b") as other:
        async with Redis.from_url(one.url) as redis:
            await redis.replicaof("127.0.0.1", other.url.rpartition(":")[2].removesuffix("/0"))
        seen = await found(redis_findings(Settings(redis=one.url)))
        started = xl3m("worker", XL3M_REDIS=one.url)
    assert seen["Redis"].mark == "FAIL" and "replica of 127.0.0.1" in seen["Redis"].message
    (line,) = started.stderr.splitlines()
    assert started.returncode == 3 and "replica of 127.0.0.1" in line


# -- the group ---------------------------------------------------------------------------------


@pytest.mark.guarantee("Zombie fencing")
async def test_another_group_on_the_same_topics_is_refused_and_on_others_warned_of(
    empty: tuple[str, Redis],
) -> None:
    url, redis = empty
    mine = Settings(redis=url, group="a")
    theirs = mine.replace(group="b")
    assert (await found(redis_findings(mine)))["Redis group"].mark == "ok"
    assert not await redis.exists(keys.groups())  # the doctor writes nothing
    assert await note_group(redis, mine) == await note_group(redis, mine) == ""
    with pytest.raises(SettingsError, match=r"group 'a'.*of 'b'.*XL3M_PREFIX"):
        await note_group(redis, theirs)
    assert (await found(redis_findings(theirs)))["Redis group"].mark == "FAIL"
    assert await note_group(redis, theirs.replace(prefix="b")) == ""
    elsewhere = theirs.replace(tokens_topic="other", questions_topic="others")
    assert "streams of group 'a'" in await note_group(redis, elsewhere)
    assert (await found(redis_findings(elsewhere)))["Redis group"].mark == "WARN"
    await redis.delete(keys.groups())  # as the message says
    assert await note_group(redis, theirs) == ""


async def test_who_is_refused_leaves_no_note_on_the_topics_that_are_free(
    empty: tuple[str, Redis],
) -> None:
    url, redis = empty
    mine = Settings(redis=url, group="a", tokens_topic="x")
    await note_group(redis, mine)
    with pytest.raises(SettingsError, match="group 'a'"):
        await note_group(redis, mine.replace(group="b", tokens_topic="free,x"))
    assert await note_group(redis, mine.replace(tokens_topic="x,free")) == ""


# -- the schema ------------------------------------------------------------------------------


async def test_the_first_worker_notes_the_schema(empty: tuple[str, Redis]) -> None:
    _, redis = empty
    assert await check_schema(redis, keys) is None
    for _ in range(2):
        await ensure_schema(redis, keys)
        assert await redis.get(keys.schema()) == str(SCHEMA).encode()
    assert keys.schema() == "xl3m:schema"


@pytest.mark.guarantee("Rebuild")
@pytest.mark.parametrize("noted", [str(SCHEMA + 1), "0", "one", b"\xff"])
async def test_another_schema_is_refused_and_left_as_it_is(
    empty: tuple[str, Redis], noted: str | bytes
) -> None:
    _, redis = empty
    await redis.set(keys.schema(), noted)
    before = await redis.get(keys.schema())
    with pytest.raises(SchemaError):
        await ensure_schema(redis, keys)
    assert await redis.get(keys.schema()) == before


async def test_a_worker_does_not_start_on_a_newer_schema(empty: tuple[str, Redis]) -> None:
    url, redis = empty
    await redis.set(keys.schema(), 7)
    done = xl3m("worker", XL3M_REDIS=url)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "schema 7" in line and "newer" in line


async def test_the_doctor_shows_the_schema_and_notes_none(empty: tuple[str, Redis]) -> None:
    url, redis = empty
    assert (await found(redis_findings(Settings(redis=url))))["schema"].mark == "ok"
    assert not await redis.exists(keys.schema())
    await redis.set(keys.schema(), 7)
    assert (await found(redis_findings(Settings(redis=url))))["schema"].mark == "FAIL"


# -- Kafka -----------------------------------------------------------------------------------


async def test_topics_that_are_missing_are_named_and_not_made(
    broker: services.Service, topics: dict[str, Any]
) -> None:
    settings = Settings(broker=broker.url, **topics)
    for _ in range(2):
        seen = await found(kafka_findings(settings))
        assert seen["Kafka"].mark == "ok"
        missing = {what for what, finding in seen.items() if finding.mark == "WARN"}
        assert missing == {f"topic {name}" for name in topic_names(settings)}
        assert all(
            "the broker creates it with its defaults" in seen[what].message for what in missing
        )
    assert await partition_counts(settings) == {}


async def test_topics_are_shown_with_their_partitions(
    broker: services.Service, topics: dict[str, Any]
) -> None:
    settings = Settings(broker=broker.url, **topics)
    await ensure_topics(settings)
    counts = await partition_counts(settings)
    seen = await found(kafka_findings(settings))
    assert {finding.mark for finding in seen.values()} == {"ok"}
    for name in topic_names(settings):
        assert f"partitions: {counts[name]}" in seen[f"topic {name}"].message
    assert "share" in seen[f"topic {settings.tokens_topic}"].message


async def test_a_broker_that_makes_no_topics_is_not_called_absent(
    broker: services.Service, topics: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_app.kafka.topics.CREATION_SECONDS", 0.0)
    with pytest.raises(UnreachableError, match="create them"):
        await ensure_topics(Settings(broker=broker.url, **topics))


# -- settings, model, and all of it ----------------------------------------------------------


def test_the_model_is_loaded_and_the_method_fitted(model: str) -> None:
    well = Settings(model=model)
    assert next(model_findings(well)).mark == "ok"
    for ill in (well.replace(model="/no/such/model"), well.replace(segment_tokens=100_000)):
        assert next(model_findings(ill)).mark == "FAIL"


def test_settings_that_cannot_be_used_end_the_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XL3M_REDIS", "http://user:secret@host")
    (only,) = examine()
    assert only.mark == "FAIL" and "XL3M_REDIS" in only.message
    assert "secret" not in str(only)


def test_all_is_a_line_each_and_the_verdict(
    broker: services.Service,
    redis_url: str,
    model: str,
    topics: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in topics.items():
        monkeypatch.setenv(f"XL3M_{name.upper()}", value)
    given = {"broker": broker.url, "redis": redis_url, "model": model}
    monkeypatch.setenv("XL3M_TEXT_FEILD", "hunter2")
    assert run(**given)  # the broker creates them
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("WARN: topic ")]) == len(TOPICS)
    assert "WARN: settings: XL3M_TEXT_FEILD is not a setting: XL3M_TEXT_FIELD?" in lines
    monkeypatch.setattr("stream_app.cli.doctor.auto_creates_topics", _makes_none)
    assert not run(**given)
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("FAIL: topic ")]
    assert len(failed) == len(TOPICS) and all("kafka-topics.sh" in line for line in failed)
    assert all(line.split(":")[0] in ("ok", "WARN", "FAIL") for line in lines)


async def _makes_none(_: Settings) -> bool:
    return False


def test_the_command_ends_with_1_when_it_finds_a_problem() -> None:
    done = xl3m("doctor", "--model", "/no/such/model")
    assert done.returncode == 1
    assert done.stderr == ""
    marks = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert marks == ["ok", "FAIL", "FAIL", "FAIL"]


def test_the_command_ends_with_0_when_all_is_well(
    broker: services.Service, redis_url: str, model: str
) -> None:
    asyncio.run(ensure_topics(Settings(broker=broker.url)))
    done = xl3m("doctor", "--model", model, XL3M_BROKER=broker.url, XL3M_REDIS=redis_url)
    assert done.returncode == 0, done.stdout + done.stderr
