"""The topic monitor: missing and recreated topics."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from stream_app.kafka import topic_monitor
from stream_app.kafka.fetch_state import TOPICS
from stream_app.kafka.topic_monitor import MISSING_CHECKS, TopicMonitor


class Consumer:
    """A stand-in for aiokafka's consumer with given topics and ids."""

    def __init__(self, **ids: str) -> None:
        self.known, self.renewals, self.listeners = ids, 0, list[Any]()
        self._client = SimpleNamespace(
            cluster=SimpleNamespace(
                add_listener=self.listeners.append, partitions_for_topic=self.known.get
            ),
            force_metadata_update=self.renew,
        )

    def subscription(self) -> frozenset[str]:
        return frozenset({"a", "b"})

    def renew(self) -> None:
        self.renewals += 1


@pytest.fixture
def ids_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Topic ids without a broker."""

    async def topic_ids(client: Any, names: Any) -> dict[str, str]:
        partitions_for = client.cluster.partitions_for_topic
        return {name: partitions_for(name) for name in names if partitions_for(name)}

    monkeypatch.setattr(topic_monitor, "topic_ids", topic_ids)


@pytest.mark.guarantee("Recreated topics")
@pytest.mark.usefixtures("ids_of")
async def test_a_missing_topic_is_logged_once_and_requested_until_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    consumer, blocked = Consumer(a="c/1"), dict[str, str]()
    monitor = TopicMonitor(consumer, lambda: None, blocked)
    for _ in range(MISSING_CHECKS - 1):  # as before the first metadata came
        await monitor.check()
    assert not caplog.text and not blocked and not monitor.missing
    for _ in range(5):
        await monitor.check()
    assert len([message for message in caplog.messages if "topic b does not exist" in message]) == 1
    assert blocked == {TOPICS: "does not exist: b"} and monitor.missing == {"b"}
    assert consumer.renewals == MISSING_CHECKS + 4
    consumer.known["b"] = "c/2"
    await monitor.check()
    assert "topic b exists again" in caplog.messages[-1]
    assert not blocked and not monitor.missing
    assert consumer.renewals == MISSING_CHECKS + 4


@pytest.mark.guarantee("Recreated topics")
@pytest.mark.usefixtures("ids_of")
async def test_a_recreated_topic_starts_one_rebalance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    consumer, rejoined = Consumer(a="c/1", b="c/2"), list[int]()
    monitor = TopicMonitor(consumer, lambda: rejoined.append(1), {})
    [renewed] = consumer.listeners
    assert await monitor.ids(["a", "b"]) == {"a": "c/1", "b": "c/2"}
    for _ in range(3):
        renewed(None)
        await monitor.check()
    assert not rejoined
    consumer.known["b"] = "c/3"
    await monitor.check()
    assert not rejoined, "it was looked at just now"
    for _ in range(3):
        renewed(None)
        await monitor.check()
    assert len(rejoined) == 1
    assert ["topic b was recreated" in message for message in caplog.messages] == [True]
    await monitor.ids(["a", "b"])
    consumer.known["b"] = "another/4"  # of another cluster, as a copy may be
    renewed(None)
    await monitor.check()
    assert len(rejoined) == 1
