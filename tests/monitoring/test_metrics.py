"""Metrics show what the worker's state is and count what it did."""

import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from stream_app.formats.notes import Notes
from stream_app.ingest.decoder import TokenDecoder
from stream_app.kafka.dead_letters import dead_letter_sender
from stream_app.requests import Query
from stream_app.scoring.streams import stream_totals
from stream_app.settings import Settings
from tests.support.fakes import Event, Message, running
from tests.support.monitored import MonitoredWorker

Fresh = Callable[[str], str]


async def test_lag_falls_to_zero_as_steps_are_taken(world: MonitoredWorker, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.set(stream)
    await world.grow(stream, 30)
    assert world.value("xl3m_lag_tokens") == 30 * world.engine.method.segment_tokens
    assert world.value("xl3m_min_coverage_ratio") == 0
    steps = 0
    while await world.scorer.step():
        steps += 1
    assert steps > 1
    assert world.value("xl3m_lag_tokens") == 0
    assert world.value("xl3m_min_coverage_ratio") == 1
    assert world.value("xl3m_step_seconds_count") == steps
    assert world.value("xl3m_step_fill_ratio_count") == steps
    assert 0 < world.value("xl3m_step_fill_ratio_sum") <= 1.25 * steps


async def test_coverage_is_the_lowest_of_any_question_of_an_owned_stream(
    world: MonitoredWorker, fresh: Fresh
) -> None:
    assert math.isnan(world.value("xl3m_min_coverage_ratio"))
    one, other = fresh("stream"), fresh("stream")
    await world.set(one)
    await world.grow(one, 4)
    while await world.scorer.step():
        pass
    await world.set(one, "late?")
    await world.grow(other, 3)
    assert world.value("xl3m_streams_tracked") == 2
    assert world.value("xl3m_min_coverage_ratio") == 0
    world.scorer.streams.tracked[one].waiters = 1
    world.scorer.streams.disown([one])
    assert world.value("xl3m_streams_tracked") == 2
    assert math.isnan(world.value("xl3m_min_coverage_ratio"))


async def test_missing_offsets_are_those_of_owned_streams(
    world: MonitoredWorker, fresh: Fresh
) -> None:
    one, other = fresh("stream"), fresh("stream")
    await world.grow(one, 1, missing_offsets=3)
    await world.grow(one, 1, missing_offsets=2)
    await world.grow(other, 1, missing_offsets=1)
    assert world.value("xl3m_missing_offsets") == 6
    world.scorer.streams.tracked[one].waiters = 1
    world.scorer.streams.disown([one])
    assert world.value("xl3m_streams_tracked") == 2
    assert world.value("xl3m_missing_offsets") == 1


@pytest.mark.guarantee("Logs and metrics")
async def test_totals_equal_a_walk_over_all_streams(world: MonitoredWorker, fresh: Fresh) -> None:
    names, rng = [fresh("stream") for _ in range(5)], random.Random(1)
    streams, most = world.scorer.streams, 0
    for turn in range(60):
        stream = rng.choice(names)
        match turn % 5:
            case 0 | 1:
                await world.grow(stream, rng.randint(1, 5), missing_offsets=rng.randint(0, 2))
            case 2:
                await world.set(stream, rng.choice(["q?", "r?"]))
            case 3:
                streams.disown([stream])
            case 4:
                await world.scorer.step()
        walked = [stream_totals(w) for w in streams.tracked.values() if w.owned]
        assert streams.totals.lag == sum(each.lag for each in walked)
        assert streams.totals.missing_offsets == sum(each.missing_offsets for each in walked)
        most = max(most, streams.totals.lag)
        least = min((s.coverage for s in walked if s.coverage == s.coverage), default=math.nan)
        assert streams.totals.coverage() == pytest.approx(least, nan_ok=True)
    assert most > 0


async def test_queries_are_counted_by_outcome(world: MonitoredWorker, fresh: Fresh) -> None:
    stream = fresh("stream")
    await world.grow(stream, 5)
    await world.answering.answer(Query("1", fresh("unknown"), "q?", 0))
    await world.answering.answer(Query("2", stream, "q?", 0))
    async with running(world.scorer):
        await world.answering.answer(Query("3", stream, "q?", 30))
    for outcome in ("refused", "partial", "complete"):
        assert world.value("xl3m_queries_total", outcome=outcome) == 1
    assert world.value("xl3m_query_seconds_count") == 3


async def test_a_dead_letter_counts_when_it_is_sent(world: MonitoredWorker) -> None:
    sent: list[bytes] = []

    async def send(key: bytes | None, value: bytes) -> None:
        assert world.value("xl3m_dead_letters_total") == len(sent)
        sent.append(value)

    dead_letter = dead_letter_sender(send, world.metrics.dead_letter)
    for offset in range(3):
        await dead_letter(Event(Message("t", 0, offset, None, None, b"?")), "why")
    assert world.value("xl3m_dead_letters_total") == 3


async def test_reports_of_the_decoder_are_counted(world: MonitoredWorker) -> None:
    metrics = world.metrics
    notes = Notes(metrics.skipped, metrics.missing_key_field, metrics.unparsed_time)
    settings = Settings(input_format="json", key_field="host")
    decoder = TokenDecoder(settings, lambda ids: "", notes)
    for value in (b'{"text": ""}', b"null", b'{"text": "x"}', b'{"text": "x", "time": "?"}', b"[]"):
        decoder.decode(b"key", value, source="t/0", time_ms=0)
    assert world.value("xl3m_skipped_records_total") == 2
    assert world.value("xl3m_missing_key_fields_total") == 2
    assert world.value("xl3m_unparsed_times_total") == 1


async def test_retrying_operations_are_counted(world: MonitoredWorker) -> None:
    assert world.value("xl3m_redis_retrying_operations") == 0
    with world.health.track("scoring") as retry:
        retry.failed(OSError("away"))
        assert world.value("xl3m_redis_retrying_operations") == 1
    assert world.value("xl3m_redis_retrying_operations") == 0


async def test_two_workers_of_a_process_count_apart(
    world: MonitoredWorker, redis_client: Redis, fresh: Fresh
) -> None:
    other = MonitoredWorker(redis_client)
    await world.grow(fresh("stream"), 2)
    world.metrics.dead_letter()
    assert world.value("xl3m_streams_tracked") == 1
    assert other.value("xl3m_streams_tracked") == other.value("xl3m_dead_letters_total") == 0


async def test_metrics_name_no_stream(
    http_client: Any, world: MonitoredWorker, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await world.set(stream)
    await world.grow(stream, 5)
    await world.scorer.step()
    reply = await http_client.get("/metrics")
    text = await reply.text()
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    assert set(re.findall(r'[{,](\w+)="', text)) == {"le", "outcome"}
    assert stream not in text and "q?" not in text
    assert "xl3m_streams_tracked 1.0" in text.splitlines()


async def test_the_documentation_names_every_metric(http_client: Any) -> None:
    text = await (await http_client.get("/metrics")).text()
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    families = re.findall(r"^# TYPE (xl3m_\w+) (?!gauge$)|^# TYPE (xl3m_\w+) gauge", text, re.M)
    served = {name for pair in families for name in pair if name and "_created" not in name}
    named = set(re.findall(r"`(xl3m_\w+)[{`]", page))
    assert served == named
