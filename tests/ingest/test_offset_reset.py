"""Start position: applied once, and only to partitions that were never read."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.errors import SettingsError
from stream_app.ingest.partitions import Assignment
from stream_app.settings import Settings
from stream_app.settings.offset_reset import parse_start
from stream_app.store.store import StreamStore
from tests.kafka.test_records import assert_alive, has_no_lag, log_of, text_of, with_changes
from tests.support.fakes import TP, FakeBroker
from tests.support.workers import Site


def test_each_form_is_understood() -> None:
    assert (parse_start("earliest", 0), parse_start("latest", 0)) == ("earliest", "latest")
    assert parse_start("-1h", 7200) == 3_600_000
    assert parse_start("-9d", 1) == 0
    assert parse_start("1970-01-01T00:00:02Z", 0) == parse_start("1970-01-01 00:00:02", 0) == 2000


@pytest.mark.parametrize("start", ["soon", "-1y", "1h", "2026-13-01", "-1h "])
def test_what_is_no_start_is_refused_by_name(start: str) -> None:
    with pytest.raises(SettingsError, match="XL3M_START"):
        Settings.from_env({"XL3M_START": start})


@pytest.mark.parametrize("topics", ["a,,b", "a, a", "a,xl3m.queries", "^app(", "a b,c"])
def test_topics_that_cannot_be_are_refused_by_name(topics: str) -> None:
    with pytest.raises(SettingsError, match="XL3M_TOKENS_TOPIC"):
        Settings.from_env({"XL3M_TOKENS_TOPIC": topics})


@pytest.mark.guarantee("Start position")
@pytest.mark.parametrize(("start", "at"), [("latest", 60), (1000, 30)])
async def test_an_unread_partition_begins_at_the_start_position_once(
    redis_client: Redis, fresh: Callable[[str], str], start: Any, at: int
) -> None:
    store, topics = StreamStore(redis_client), {fresh("a"), fresh("b")}
    tps = [TP(topic, 0) for topic in sorted(topics)]
    partitions = Assignment(store, ",".join(topics), topics, start)
    broker = FakeBroker({tps[1]: 7}, dict.fromkeys(tps, 60))
    await partitions.assign(tps, broker)
    first, known = (partitions.owned[f"{tp.topic}/0"] for tp in tps)
    assert (first.position, first.expected) == (at, at)
    assert known.position is None, "the group knows it"
    assert broker.commits[0] == {tps[0]: at}
    broker.ends[tps[0]] = 90
    await partitions.assign(tps, broker)
    assert partitions.owned[f"{tps[0].topic}/0"].position == at


HOUR_S = 3600


async def write(here: Site, stream: str, partition: int, text: str, hours_ago: float) -> None:
    await here.producer.send_and_wait(
        here.settings.tokens_topic, f"{text}\n".encode(), key=stream.encode(),
        partition=partition, timestamp_ms=round((time.time() - hours_ago * HOUR_S) * 1000),
    )  # fmt: skip


@pytest.mark.guarantee("Start position")
@pytest.mark.parametrize(
    "start", ["latest", "-1h", datetime.fromtimestamp(time.time() - HOUR_S, UTC).isoformat()]
)
async def test_on_kafka_only_unread_partitions_begin_at_the_start_position(
    here: Site, fresh: Callable[[str], str], start: str
) -> None:
    known, never, topic = fresh("known"), fresh("never"), here.settings.tokens_topic
    await write(here, known, 0, "long ago", 3)
    worker = await here.start()

    async def holds(stream: str, text: str) -> bool:
        return await text_of(here, stream) == text

    await here.until(lambda: holds(known, "long ago\n"))
    await here.until(lambda: has_no_lag(here, topic))
    await here.stop(worker)
    await write(here, known, 0, "while no worker ran", 2)
    await write(here, never, 1, "never read, two hours ago", 2)
    await write(here, never, 1, "never read, just now", 0)
    other = with_changes(here, start=start, group=fresh("group"), prefix=fresh("prefix"))
    again = with_changes(here, start=start)
    await again.start()
    await here.until(lambda: holds(known, "long ago\nwhile no worker ran\n"))
    await here.until(lambda: has_no_lag(here, topic))
    await write(here, never, 1, "from now on", 0)
    later = "from now on\n" if start == "latest" else "never read, just now\nfrom now on\n"
    await here.until(lambda: holds(never, later))

    async def other_holds(stream: str, text: str) -> bool:
        return await text_of(other, stream) == text

    await other.start()
    await here.until(lambda: has_no_lag(other, topic))
    await write(here, known, 0, "for both", 0)
    await here.until(lambda: holds(known, "long ago\nwhile no worker ran\nfor both\n"))
    await here.until(lambda: other_holds(known, "for both\n"))
    assert "are missing" not in log_of(here)
    assert_alive(here)
