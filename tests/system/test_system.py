"""The whole system on a real broker and a real Redis: workers are processes, and tests use the
public endpoints. Streams must equal an offline run over the same text.
"""

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgpack
import pytest

from stream_app.client import client
from stream_app.embedded import services
from stream_app.embedded.process import free_port
from stream_app.embedded.services import Service
from stream_app.events import decode
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.testing import top_k
from tests.support.workers import Site, offline, site

Fresh = Callable[[str], str]


def log_text(seed: int, lines: int) -> str:
    """Lines of uneven length, some empty, some not ASCII."""
    random_ = random.Random(seed)
    words = ["pump", "valve", "pressure", "low", "ok", "Übertrag", "気圧", "x" * 60, "", "42"]
    made = [" ".join(random_.choices(words, k=random_.randrange(12))) for _ in range(lines)]
    return "\n".join(made) + "\n"


def chunks(text: str, seed: int) -> list[str]:
    """The text in events of one to five records."""
    lines, random_ = text.splitlines(keepends=True), random.Random(seed)
    pieces = []
    while lines:
        count = random_.randint(1, 5)
        pieces.append("".join(lines[:count]))
        lines = lines[count:]
    return pieces


@pytest.fixture
async def anywhere(
    broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> AsyncIterator[Site]:
    """A site on the best available broker, for tests that need no durability."""
    async with site(broker.url, redis_url, tmp_path, fresh) as made:
        yield made


async def finished(here: Site, stream: str, question: str, segments: int) -> bool:
    """Whether the stream has that many segments, all of them scored."""
    known = await client.describe(here.store, stream)
    done = [q["coverage"] for q in known["questions"] if q["question"] == question]
    return known["segments"] == segments and done == [1.0]


async def assert_equals_offline(here: Site, stream: str, question: str, text: str) -> None:
    """Compare the log exactly, the top-k by index, and their scores within 1e-3."""
    engine = here.engine
    segments, scores = offline(engine, text, question)
    await here.until(lambda: finished(here, stream, question, len(segments)))
    found = await here.store.segments(stream, 0, len(segments))
    assert [(s.text, s.start, s.end, s.end_token) for s in found] == [
        (s.text, s.start, s.end, s.end_token) for s in segments
    ]
    best = top_k(engine, segments, scores)
    seen = await client.top(here.store, stream, question)
    assert seen is not None
    assert [s["index"] for s in seen["top"]] == [index for index, _ in best]
    assert [s["score"] for s in seen["top"]] == pytest.approx([s for _, s in best], abs=1e-3)


@pytest.mark.guarantee("Failover")
@pytest.mark.guarantee("Stream equals batch")
async def test_streams_equal_an_offline_run_though_a_worker_stops_and_starts(
    here: Site, fresh: Fresh
) -> None:
    texts = {fresh(f"stream {i}/ü"): log_text(i, 150) for i in range(8)}
    questions = {stream: f"which pump {i}?" for i, stream in enumerate(texts)}
    for stream, question in questions.items():
        await here.send("questions", stream, question.encode())
    worker, _ = await here.start(), await here.start()

    async def feed(stream: str) -> None:
        for piece in chunks(texts[stream], 1):
            await here.send("tokens", stream, piece.encode())

    async def restart() -> None:
        first = next(iter(texts))
        await here.until(lambda: has_begun(here, first))
        assert await here.stop(worker) == 0
        await here.start()

    await asyncio.gather(restart(), *map(feed, texts))
    for stream, question in questions.items():
        await assert_equals_offline(here, stream, question, texts[stream])


async def has_begun(here: Site, stream: str) -> bool:
    return (await here.store.load(stream)).cursor.version > 0


@pytest.mark.guarantee("Failover")
async def test_a_killed_worker_costs_nothing(here: Site, fresh: Fresh) -> None:
    # The partitions are reassigned after the session timeout.
    here.settings = here.settings.replace(session_timeout_seconds=6.0)
    stream, question, text = fresh("stream"), "is the valve ok?", log_text(9, 300)
    await here.send("questions", stream, question.encode())
    pieces = chunks(text, 2)
    worker = await here.start()
    for piece in pieces[: len(pieces) // 2]:
        await here.send("tokens", stream, piece.encode())
    await here.until(lambda: has_begun(here, stream))
    worker.kill()
    await worker.wait()
    await here.start()
    for piece in pieces[len(pieces) // 2 :]:
        await here.send("tokens", stream, piece.encode())
    await assert_equals_offline(here, stream, question, text)


@pytest.mark.guarantee("Coverage")
async def test_a_late_question_covers_the_history(here: Site, fresh: Fresh) -> None:
    stream, question, text = fresh("stream"), "what is low?", log_text(3, 200)
    await here.start()
    for piece in chunks(text, 3):
        await here.send("tokens", stream, piece.encode())
    await here.until(lambda: has_begun(here, stream))
    await here.send("questions", stream, json.dumps({"question": question}).encode())
    await assert_equals_offline(here, stream, question, text)


MALFORMED = {
    "msgpack": [
        (b"\x81\xa4text", "not msgpack"),
        (b"plain text", "not a msgpack map"),
        (b'{"text": "json"}', "not a msgpack map"),
        (msgpack.packb({"txt": "x"}), "'text' is missing"),
        (msgpack.packb({"text": 7}), "must be str"),
        (msgpack.packb({"ids": ["a"]}), "list of token ids"),
    ],
    "json": [
        (b"{", "not json"),
        (b"[1]", "not an object"),
        (b'{"line": "x"}', "'text' is missing"),
    ],
    "lines": [
        (b"caf\xe9", "not UTF-8"),
        (b"x" * 5000, "more than the 4096 allowed"),
    ],
}


@pytest.mark.guarantee("Dead letters")
@pytest.mark.parametrize("format", MALFORMED)
async def test_malformed_events_are_dead_lettered_and_the_stream_goes_on(
    format: str, broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    good = {
        "lines": b"good",
        "json": b'{"text": "good"}',
        "msgpack": msgpack.packb({"text": "good"}),
    }
    changes = {"input_format": format, "max_event_bytes": 4096}
    async with site(broker.url, redis_url, tmp_path, fresh, **changes) as here:
        stream, bad = fresh("stream"), MALFORMED[format]
        await here.start()
        sent = [await here.send("tokens", stream, value) for value, _ in bad]
        await here.send("tokens", stream, good[format])
        await here.until(lambda: has_begun(here, stream))
        letters = [json.loads(v) for _, v in await here.received("dead_letters", len(bad))]
        for letter, (value, reason), record in zip(letters, bad, sent, strict=True):
            assert reason in letter["reason"]
            assert letter["topic"] == here.settings.tokens_topic
            assert (letter["partition"], letter["offset"]) == (record.partition, record.offset)
            assert (value or b"").startswith(base64.b64decode(letter["value"]))
        assert (await here.store.load(stream)).tail.end in (4, 5)


@pytest.mark.guarantee("Kafka queries")
async def test_a_query_through_kafka_is_answered_on_the_answers_topic(
    anywhere: Site, fresh: Fresh
) -> None:
    stream = fresh("stream")
    await anywhere.start()
    await anywhere.send("tokens", stream, log_text(4, 60).encode())
    await anywhere.until(lambda: has_begun(anywhere, stream))
    query = {"id": "q1", "question": "which valve?"}
    await anywhere.send("queries", stream, json.dumps(query).encode())
    await anywhere.send("queries", stream, msgpack.packb(query | {"id": "q2"}))
    received = await anywhere.received("answers", 2)  # in any order: they are answered concurrently
    assert {key for key, _ in received} == {stream.encode()}
    answers = {fields["id"]: (fields, value) for _, value in received if (fields := decode(value))}
    (answer, text), (packed, blob) = answers["q1"], answers["q2"]
    assert json.loads(text) == answer and msgpack.unpackb(blob) == packed
    assert answer["coverage"] == 1.0
    assert answer["evidence"] and answer["answer"] == packed["answer"]


@pytest.mark.guarantee("Pub/sub queries")
async def test_one_answer_however_many_workers_listen(anywhere: Site, fresh: Fresh) -> None:
    stream = fresh("stream")
    for _ in range(2):
        await anywhere.start()
    await anywhere.send("tokens", stream, log_text(5, 60).encode())
    await anywhere.until(lambda: has_begun(anywhere, stream))
    await anywhere.until(lambda: listening(anywhere, 2))
    messages = [m async for m in client.ask(anywhere.store, stream, "which pump?", 30)]
    answers = [m for m in messages if m["type"] == "answer"]
    assert len(answers) == 1 and "error" not in answers[0]
    spoken = "".join(m["text"] for m in messages if m["type"] == "text")
    assert spoken.strip() == answers[0]["answer"]


async def listening(here: Site, workers: int) -> bool:
    return (await here.redis.pubsub_numsub("xl3m:query"))[0][1] == workers


@pytest.mark.guarantee("Redis outages")
async def test_redis_away_costs_time_and_nothing_else(
    durable_broker: Service, tmp_path: Path, fresh: Fresh
) -> None:
    stream, question, text = fresh("stream"), "is it ok?", log_text(6, 200)
    pieces = chunks(text, 4)
    half = len(pieces) // 2
    port = free_port()
    with contextlib.ExitStack() as first:
        redis = first.enter_context(services.redis(tmp_path / "r", appendonly=True, port=port))
        async with site(durable_broker.url, redis.url, tmp_path, fresh) as here:
            await here.send("questions", stream, question.encode())
            await here.start()
            for piece in pieces[:half]:
                await here.send("tokens", stream, piece.encode())
            await here.until(lambda: has_begun(here, stream))
            first.close()
            for piece in pieces[half:]:
                await here.send("tokens", stream, piece.encode())
            log = here.folder / "workers.log"
            await here.until(lambda: says(log, "waits for Redis"))
            with services.redis(tmp_path / "r", appendonly=True, port=port):
                await assert_equals_offline(here, stream, question, text)
                assert all(worker.returncode is None for worker in here.workers)


async def says(log: Path, words: str) -> bool:
    return words in log.read_text()


@pytest.mark.guarantee("Positions in Redis")
@pytest.mark.guarantee("Lost writes")
async def test_a_redis_that_lost_everything_is_filled_again_from_kafka(
    durable_broker: Service, tmp_path: Path, fresh: Fresh
) -> None:
    stream, question, text = fresh("stream"), "is it low?", log_text(7, 80)
    with services.redis(tmp_path / "r") as redis:
        async with site(durable_broker.url, redis.url, tmp_path, fresh) as here:
            await here.send("questions", stream, question.encode())
            worker = await here.start()
            for piece in chunks(text, 5):
                await here.send("tokens", stream, piece.encode())
            await assert_equals_offline(here, stream, question, text)
            await here.stop(worker)
            await here.redis.flushall()
            await here.start()
            await assert_equals_offline(here, stream, question, text)


@pytest.mark.guarantee("Lost writes")
async def test_a_question_that_redis_lost_in_a_restart_is_set_again(
    durable_broker: Service, tmp_path: Path, fresh: Fresh
) -> None:
    stream, lost, text = fresh("stream"), "is it low?", log_text(8, 80)
    with services.redis(tmp_path / "r") as redis:
        async with site(durable_broker.url, redis.url, tmp_path, fresh) as here:
            worker = await here.start()
            await here.send("questions", stream, b"is it ok?")
            for piece in chunks(text, 5):
                await here.send("tokens", stream, piece.encode())
            await assert_equals_offline(here, stream, "is it ok?", text)
            record = await here.send("questions", stream, lost.encode())
            await assert_equals_offline(here, stream, lost, text)
            await forget(here, stream, f"{record.topic}/{record.partition}", record.offset)
            await asyncio.wait_for(worker.wait(), 60)  # it detected the lost question
            here.workers.clear()
            await here.start()
            await assert_equals_offline(here, stream, lost, text)


async def forget(here: Site, stream: str, partition: str, offset: int) -> None:
    """Simulate a Redis that was killed before it saved this question and restarted; its clients see
    a broken connection."""
    await here.redis.delete(keys.questions(stream))
    await here.redis.hset(keys.partition(partition), "next", str(offset))
    await here.redis.client_kill_filter(_type="pubsub")
