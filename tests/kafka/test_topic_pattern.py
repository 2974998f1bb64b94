"""Topics named by a pattern, on the real Kafka: existing and later topics are read."""

import asyncio
from collections.abc import Callable

import pytest

from stream_app.errors import SettingsError, UnreachableError
from stream_app.kafka import topic_pattern
from stream_app.kafka.topics import retained
from stream_app.settings import Settings
from tests.kafka.test_records import assert_alive, log_of, one_partition, reads, with_changes
from tests.support.workers import Site

Fresh = Callable[[str], str]


async def test_a_file_that_is_missing_for_a_moment_does_not_end_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = iter((SettingsError("no such file"), UnreachableError("away"), ["app.a"]))
    read, found = asyncio.Event(), set[str]()

    async def matching(_: Settings) -> list[str]:
        now = next(tries, ["app.a"])
        if isinstance(now, Exception):
            raise now
        return now

    async def subscribe(names: list[str]) -> None:
        read.set()

    monkeypatch.setattr(topic_pattern, "matching", matching)
    monkeypatch.setattr(topic_pattern, "POLL_SECONDS", 0.01)
    looking = topic_pattern.TopicPattern(Settings(tokens_topic="^app"), found, subscribe).run()
    task = asyncio.create_task(looking)
    async with asyncio.timeout(5):
        await read.wait()
    task.cancel()
    assert found == {"app.a"}


@pytest.mark.guarantee("Unreadable records")
async def test_topics_that_match_are_read_and_those_made_later_too(
    here: Site, fresh: Fresh
) -> None:
    assert topic_pattern.POLL_SECONDS < 60
    prefix, other = fresh("app"), fresh("other")
    for topic in (f"{prefix}.a", other):
        await one_partition(here, topic)
    here = with_changes(here, tokens_topic=rf"^{prefix}\..*")
    await here.producer.send_and_wait(f"{prefix}.a", b"from the first\n")
    await here.start()
    await here.until(lambda: reads(here, f"{prefix}.a/0", "from the first"))
    await one_partition(here, f"{prefix}.b")
    await here.producer.send_and_wait(f"{prefix}.b", b"from the second\n")
    await here.until(lambda: reads(here, f"{prefix}.b/0", "from the second"))
    assert set(await retained(here.settings)) == {f"{prefix}.a/0", f"{prefix}.b/0"}
    assert other not in log_of(here)
    assert_alive(here)
