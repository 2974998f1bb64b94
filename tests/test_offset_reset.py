"""Where a partition begins that was never read: as said, once, and only there."""

from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.errors import SettingsError
from stream_app.offset_reset import parse_start
from stream_app.partitions import Partitions
from stream_app.settings import Settings
from stream_app.store import StreamStore
from tests.fakes import PLENTY, TP, FakeBroker


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


@pytest.mark.parametrize(("start", "at"), [("latest", 60), (1000, 30)])
async def test_a_partition_nobody_read_begins_there_once(
    redis_client: Redis, fresh: Callable[[str], str], start: Any, at: int
) -> None:
    store, topics = StreamStore(redis_client, PLENTY, PLENTY), {fresh("a"), fresh("b")}
    tps = [TP(topic, 0) for topic in sorted(topics)]
    partitions = Partitions(store, ",".join(topics), topics, start)
    broker = FakeBroker({tps[1]: 7}, dict.fromkeys(tps, 60))
    await partitions.assign(tps, broker)
    first, known = (partitions.owned[f"{tp.topic}/0"] for tp in tps)
    assert (first.position, first.expected) == (at, at)
    assert known.position is None, "the group knows it"
    assert broker.commits[0] == {tps[0]: at}
    broker.ends[tps[0]] = 90
    await partitions.assign(tps, broker)
    assert partitions.owned[f"{tps[0].topic}/0"].position == at
