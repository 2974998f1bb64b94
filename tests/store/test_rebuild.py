"""A rebuilt stream ends in the same state, also beside running workers; others do not change."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.client import client
from stream_app.embedded import services
from stream_app.embedded.services import Service
from stream_app.errors import SchemaError
from stream_app.store import schema
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.keys import SCHEMA
from stream_app.store.range_update import Extended, RangeResult, RangeUpdate
from stream_app.store.rebuild_apply import apply, find_keys, set_back
from stream_app.store.rebuild_plan import (
    Retained,
    RetainedOffsets,
    partition_states,
    plan,
    retained_offsets,
    unread,
)
from stream_app.store.schema import delete_old_schema
from stream_app.store.state import (
    Commit,
    FencedError,
    LostWritesError,
    QuestionRecord,
    ScoredRange,
)
from stream_app.store.store import StreamStore
from tests.ingest.test_tokens import assert_holds
from tests.ingest.test_tokens import site as reader
from tests.support.fakes import PLENTY, TP, FakeBroker, on_redis
from tests.support.rows import rows_of
from tests.support.workers import Site, offline, site
from tests.system.test_system import assert_equals_offline, chunks, finished, log_text

# Workers and Kafka are started and stopped: that takes long on a busy machine.
pytestmark = pytest.mark.timeout(300)

Fresh = Callable[[str], str]
QUESTION = "which pump?"


@pytest.fixture
def store(redis_client: Redis) -> StreamStore:
    """A store without retention limits."""
    return StreamStore(redis_client)


async def begin(store: StreamStore, stream: str, retained: Retained) -> None:
    """Plan and apply a rebuild of one stream."""
    planned = await plan(store, stream, retained)
    assert planned
    await apply(store, planned, retained, await find_keys(store, stream))


async def kept(redis: Any, stream: str) -> dict[bytes, bytes]:
    """All keys of a stream in Redis, with their serialised values."""
    names = sorted([name async for name in redis.scan_iter(keys.of_stream(stream))])
    return {name: await redis.dump(name) for name in names}


# -- beside workers --------------------------------------------------------------------------

TEXTS = st.lists(st.text("ab é", max_size=12).map(lambda t: t + "\n"), min_size=2, max_size=12)


@pytest.mark.guarantee("Rebuild")
@given(texts=TEXTS, cut=st.integers(0, 12), forgets=st.booleans())
@on_redis
async def test_a_stream_rebuilt_at_any_instant_ends_in_the_same_state(
    redis_client: Redis, fresh: Fresh, texts: list[str], cut: int, forgets: bool
) -> None:
    topic = fresh("topic")
    store = StreamStore(redis_client)
    first = await reader(store, topic, 0)
    key = topic.encode()
    records = [(text.encode(), key) for text in texts]
    records.insert(1, (b"another's\n", b"other " + key))
    events = [first.event(i, value, of) for i, (value, of) in enumerate(records)]
    cut = 1 + cut % (len(events) - 1)
    await first.ingest.apply(events[:cut])
    before = await kept(redis_client, f"other {topic}")
    await begin(store, topic, {f"{topic}/0": RetainedOffsets(0, len(events))})
    if forgets:
        first.ingest.states.clear()
    with pytest.raises((FencedError, LostWritesError)):
        await first.ingest.apply(events[cut:])
    assert first.offsets == [*range(cut)]
    second = await reader(store, topic, 0)
    await second.ingest.apply([second.event(e.message.offset, e.message.value, e.message.key)
                               for e in events])  # fmt: skip
    await assert_holds(second, "".join(texts))
    if before:
        assert await kept(redis_client, f"other {topic}") == before


@pytest.mark.guarantee("Rebuild")
async def test_the_next_owner_reads_the_partition_from_the_start(
    store: StreamStore, fresh: Fresh
) -> None:
    topic = fresh("topic")
    here = await reader(store, topic, 0)
    await here.ingest.apply(here.lines("a\n", "b\n", "c\n"))
    await begin(store, topic, {f"{topic}/0": RetainedOffsets(0, 3)})
    broker = FakeBroker({TP(topic, 0): 3}, {TP(topic, 0): 3})
    await here.ingest.assignment.assign([TP(topic, 0)], broker)
    assert broker.commits == [{TP(topic, 0): 0}]


@pytest.mark.guarantee("Rebuild")
async def test_a_partition_with_dead_letters_only_is_read_again(
    store: StreamStore, fresh: Fresh
) -> None:
    topic = fresh("topic")
    here, name = await reader(store, topic, 0), f"{topic}/0"
    await here.ingest.apply([here.event(0, b"caf\xe9"), here.event(1, b"\xff")])
    kafka = {name: RetainedOffsets(0, 2)}
    known = await partition_states(store.redis, store.keys, [name])
    assert unread(known, kafka, []) == {name: 2}
    assert await plan(store, topic, kafka) is None
    await set_back(store, [name], kafka)
    with pytest.raises(LostWritesError):
        await here.ingest.assignment.check_positions()
    broker = FakeBroker({TP(topic, 0): 2}, {TP(topic, 0): 2})
    await here.ingest.assignment.assign([TP(topic, 0)], broker)
    assert broker.commits == [{TP(topic, 0): 0}]
    assert unread(await partition_states(store.redis, store.keys, [name]), kafka, []) == {}


@pytest.mark.guarantee("Rebuild")
async def test_everything_is_read_again_after_a_mistyped_field(
    durable_broker: Service, redis_url: str, tmp_path: Path, fresh: Fresh
) -> None:
    stream, prefix = fresh("stream"), fresh("prefix")
    changes = {"input_format": "json", "text_field": "mesage", "prefix": prefix}
    async with site(durable_broker.url, redis_url, tmp_path, fresh, **changes) as here:
        worker = await here.start()
        for number in range(3):
            sent = await here.send("tokens", stream, b'{"message": "line %d"}' % number)

        async def is_dead_lettered() -> bool:
            return await here.store.partitions.position(f"{sent.topic}/{sent.partition}") == (3, 0)

        await here.until(is_dead_lettered)
        await here.stop(worker)
        code, output = await xl3m_rebuild(here, "--stream", stream)
        assert code == 2 and "xl3m rebuild --all" in output
        code, output = await xl3m_rebuild(here, "--all")
        assert code == 0 and output.startswith("3 offsets of ") and "next one that starts" in output
        code, output = await xl3m_rebuild(here, "--all")
        assert code == 0 and "nothing to rebuild" in output
        here.settings = here.settings.replace(text_field="message")
        await here.start()

        async def is_read() -> bool:
            return (await here.store.load(stream)).tail.end == len("line 0\n" * 3)

        await here.until(is_read)


@pytest.mark.guarantee("Rebuild")
async def test_the_stream_fences_an_earlier_owner(store: StreamStore, fresh: Fresh) -> None:
    topic = fresh("topic")
    here = await reader(store, topic, 0)
    await here.ingest.apply(here.lines("a\n"))
    (owned,) = here.ingest.assignment.owned.values()
    await begin(store, topic, {f"{topic}/0": RetainedOffsets(0, 1)})
    state = await here.state()
    with pytest.raises(FencedError):
        await store.commit([Commit(topic, state, [], state.tail, owned.name, owned.epoch, 9)])


@pytest.mark.guarantee("Rebuild")
async def test_the_owner_is_notified_and_ends_without_new_events(
    store: StreamStore, fresh: Fresh
) -> None:
    topic = fresh("topic")
    here = await reader(store, topic, 0)
    await here.ingest.apply(here.lines("a\n"))
    streams = here.ingest.scorer.streams
    await streams.refresh()
    await begin(store, topic, {f"{topic}/0": RetainedOffsets(0, 1)})
    streams.on_questions_changed(topic)  # as on a message about it
    with pytest.raises(LostWritesError, match="rebuilt"):
        await streams.refresh()


@pytest.mark.guarantee("Rebuild")
async def test_scores_of_the_deleted_log_are_refused(store: StreamStore, fresh: Fresh) -> None:
    topic = fresh("topic")
    here = await reader(store, topic, 0)
    await store.questions.ask(topic, "q", QuestionRecord("q?"))
    lines = [f"line {i}\n" for i in range(9)]
    await here.ingest.apply(here.lines(*lines))
    scored = RangeUpdate(topic, "q", ScoredRange(0, 0), 0, 2, [(0, rows_of([-1.0] * 2))])
    await begin(store, topic, {f"{topic}/0": RetainedOffsets(0, 9)})
    here = await reader(store, topic, 0)
    await here.ingest.apply(here.lines(*lines))
    assert (await here.state()).cursor.head >= 2
    assert await store.extend_range([scored], 3) == [Extended(RangeResult.CONFLICT)]
    assert await store.scored_range(topic, "q") == ScoredRange(0, 0, rebuilt=1)


@pytest.mark.guarantee("Rebuild")
async def test_only_questions_are_kept(store: StreamStore, fresh: Fresh) -> None:
    topic = fresh("topic")
    here = await reader(store, topic, 0)
    await store.questions.ask(topic, "q", QuestionRecord("q?"))
    await store.questions.ask(topic, "once", QuestionRecord("once?", expires_at=4e9))
    await here.ingest.apply(here.lines(*(f"line {i}\n" for i in range(9))))
    for qid in ("q", "once"):
        update = RangeUpdate(topic, qid, ScoredRange(0, 0), 0, 1, [(0, rows_of([-1.0]))])
        await store.extend_range([update], 3)
    await store.redis.set(keys.rows(topic, "gone", 7), b"left behind")
    asked = await store.questions.load(topic)
    await begin(store, topic, {f"{topic}/0": RetainedOffsets(0, 9)})
    assert await store.questions.load(topic) == asked
    ranges = {keys.scored_range(topic, qid).encode() for qid in asked}
    held = {keys.cursor(topic).encode(), keys.questions(topic).encode()}
    assert set(await kept(store.redis, topic)) == ranges | held
    assert await store.redis.expiretime(keys.scored_range(topic, "once")) == 4_000_000_000
    assert (await store.load(topic)).tail.end == 0


async def test_keys_are_found_by_their_stream(store: StreamStore, fresh: Fresh) -> None:
    here = [await reader(store, fresh("a {b}: *")) for _ in range(2)]
    for one in here:
        await store.questions.ask(one.topic, "q", QuestionRecord("q?"))
    every = await find_keys(store)
    for one in here:
        (names,) = (await find_keys(store, one.topic)).values()
        assert sorted(names) == sorted(await kept(store.redis, one.topic)) and len(names) == 3
        assert sorted(names) in [sorted(some) for some in every.values()]


# -- offsets that Kafka no longer has --------------------------------------------------------


@pytest.mark.guarantee("Rebuild")
async def test_offsets_that_kafka_no_longer_has_are_missing(
    store: StreamStore, fresh: Fresh
) -> None:
    topic = fresh("topic")
    here = await reader(store, topic, 0)
    await here.ingest.apply(here.lines(*"abcdef"))
    retained = {f"{topic}/0": RetainedOffsets(4, 9), f"{topic}/1": RetainedOffsets(7, 7)}
    planned = await plan(store, topic, retained)
    assert planned and (planned.missing, planned.offsets) == (4, 5)
    assert planned.partitions == (f"{topic}/0",)
    await begin(store, topic, retained)
    assert (await here.state()).cursor.gaps == 4
    assert await store.partitions.position(f"{topic}/0") == (4, 0)
    assert await store.partitions.position(f"{topic}/1") == (None, 0)


@pytest.mark.guarantee("Rebuild")
async def test_offsets_of_a_deleted_topic_are_missing(store: StreamStore, fresh: Fresh) -> None:
    topic = fresh("topic")
    here = await reader(store, topic, 0)
    await here.ingest.apply(here.lines(*"abcdef"))
    gone = await plan(store, topic, {})
    assert gone and gone.missing == 6
    known = await partition_states(store.redis, keys, [f"{topic}/0"])
    await begin(
        store, topic, retained_offsets(known, {f"{topic}/0": (0, 2)})
    )  # recreated, and shorter
    assert (await here.state()).cursor.gaps == 6
    assert await store.partitions.position(f"{topic}/0") == (0, 1)


@pytest.mark.guarantee("Rebuild")
async def test_a_worker_that_reads_meanwhile_does_not_look_like_a_recreated_topic(
    store: StreamStore, fresh: Fresh
) -> None:
    topic = fresh("topic")
    partition, here = f"{topic}/0", await reader(store, topic, 0)
    await here.ingest.apply(here.lines(*"abc"))
    known = retained_offsets(
        await partition_states(store.redis, keys, [partition]), {partition: (0, 3)}
    )
    more = [here.event(i, b"more\n", topic.encode()) for i in range(3, 6)]
    await here.ingest.apply(more)
    planned = await plan(store, topic, known)
    assert planned and planned.missing == 0
    await begin(store, topic, known)
    assert await store.partitions.position(partition) == (0, 0)
    assert (await here.state()).cursor.gaps == 0


@pytest.mark.guarantee("Rebuild")
async def test_a_recreated_topic_counts_once_if_its_next_owner_noticed_it_too(
    store: StreamStore, fresh: Fresh
) -> None:
    topic = fresh("topic")
    partition, here = f"{topic}/0", await reader(store, topic, 0)
    await here.ingest.apply(here.lines(*"abc"))
    known = retained_offsets(
        await partition_states(store.redis, keys, [partition]), {partition: (0, 2)}
    )
    assert known[partition].incarnation == 1
    await store.redis.hset(keys.partition(partition), mapping={"made": 1, "next": 2})
    await begin(store, topic, known)
    assert await store.partitions.position(partition) == (0, 1)


async def test_an_unknown_stream_has_no_plan(store: StreamStore, fresh: Fresh) -> None:
    assert await plan(store, fresh("stream"), {"t/0": RetainedOffsets(0, 9)}) is None


# -- an older schema -------------------------------------------------------------------------


@pytest.mark.guarantee("Rebuild")
async def test_an_older_schema_is_deleted_with_its_keys_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BATCH_SIZE", 3)
    others = [f"xl3m:{SCHEMA}:streams", "xl3m:00:x", "xl3m:0", "theirs:xl3m:0:x"]
    with services.redis(tmp_path) as service:
        async with Redis.from_url(service.url) as redis:
            for name in [*(f"xl3m:0:{{s{i}}}:log" for i in range(10)), *others]:
                await redis.set(name, 1)
            await redis.set(keys.schema(), 0)
            assert await delete_old_schema(redis, keys) == 10
            names: list[Any] = await redis.keys()
            assert {name.decode() for name in names} == {*others, keys.schema()}
            assert await redis.get(keys.schema()) == b"%d" % SCHEMA
            assert await delete_old_schema(redis, keys) == 0
            await redis.set(keys.schema(), SCHEMA + 1)
            with pytest.raises(SchemaError, match="newer"):
                await delete_old_schema(redis, keys)


# -- with workers, on a real Kafka -----------------------------------------------------------


async def xl3m_rebuild(here: Site, *words: str) -> tuple[int, str]:
    """Run the command; returns its exit code and its output."""
    addresses = ["--broker", here.settings.broker, "--redis", here.settings.redis]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stream_app", "rebuild", *words, *addresses,
        env=here.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def fed(here: Site, fresh: Fresh, count: int) -> dict[str, str]:
    """`count` streams with a question, read and scored by a worker that keeps running."""
    texts = {fresh(f"stream {i}/ü"): log_text(i, 80) for i in range(count)}
    for stream in texts:
        await here.send("questions", stream, QUESTION.encode())
    await here.start()
    for stream, text in texts.items():
        for piece in chunks(text, 1):
            await here.send("tokens", stream, piece.encode())
    for stream, text in texts.items():
        await settled(here, stream, text)
    return texts


async def settled(here: Site, stream: str, text: str) -> None:
    """Return when the stream is read and scored to its end."""
    segments, _ = offline(here.engine, text, QUESTION)
    await here.until(lambda: finished(here, stream, QUESTION, len(segments)))


async def entries(here: Site, stream: str) -> Any:
    """The entries of the stream's log in Redis."""
    return await here.store.redis.xrange(keys.log(stream))


@pytest.mark.guarantee("Rebuild")
async def test_a_rebuilt_stream_has_the_same_log_and_top_k_and_others_are_unchanged(
    here: Site, fresh: Fresh
) -> None:
    texts = await fed(here, fresh, 6)
    (worker,) = here.workers
    await here.stop(worker)
    one, *others = texts
    before = {stream: await kept(here.redis, stream) for stream in others}
    log, top = await entries(here, one), await client.top(here.store, one, QUESTION)
    code, output = await xl3m_rebuild(here, "--stream", one)
    assert code == 0, output
    assert "will be read again" in output and "No worker listens" in output
    assert await entries(here, one) == []
    await here.start()
    await settled(here, one, texts[one])
    assert await entries(here, one) == log
    assert await client.top(here.store, one, QUESTION) == top
    await here.stop(here.workers[-1])
    assert {stream: await kept(here.redis, stream) for stream in others} == before


@pytest.mark.guarantee("Rebuild")
async def test_a_stream_rebuilt_under_a_worker_equals_what_was_fed(
    here: Site, fresh: Fresh
) -> None:
    texts = await fed(here, fresh, 3)
    (worker,) = here.workers
    one = next(iter(texts))
    code, output = await xl3m_rebuild(here, "--stream", one)
    assert code == 0, output
    assert "those that own these partitions end" in output
    assert await asyncio.wait_for(worker.wait(), 60) != 0
    here.workers.remove(worker)
    await here.start()
    more = log_text(9, 40)
    for stream in texts:
        await here.send("tokens", stream, more.encode())
    for stream, text in texts.items():
        await assert_equals_offline(here, stream, QUESTION, text + more)


@pytest.mark.guarantee("Rebuild")
async def test_nothing_is_done_without_yes_if_kafka_lost_the_start(
    here: Site, fresh: Fresh
) -> None:
    (one,) = texts = await fed(here, fresh, 1)
    await here.stop(here.workers[0])
    (feeding,) = (await here.store.load(one)).cursor.next
    topic, _, number = feeding.rpartition("/")
    admin = AIOKafkaAdminClient(bootstrap_servers=here.settings.broker_address)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, int(number)): RecordsToDelete(5)})
    await admin.close()
    before = await kept(here.redis, one)
    code, output = await xl3m_rebuild(here, "--stream", one)
    assert code == 2 and "no longer has 5 of the offsets" in output and "--yes" in output
    assert await kept(here.redis, one) == before
    code, output = await xl3m_rebuild(here, "--stream", one, "--yes")
    assert code == 0 and "5 are missing" in output
    await here.start()
    left = "".join(chunks(texts[one], 1)[5:])
    await assert_equals_offline(here, one, QUESTION, left)
    assert (await here.store.load(one)).cursor.gaps == 5


@pytest.mark.guarantee("Rebuild")
async def test_an_older_schema_is_kept_while_workers_listen(
    broker: Service, tmp_path: Path, fresh: Fresh
) -> None:
    with services.redis(tmp_path / "r") as redis:
        async with site(broker.url, redis.url, tmp_path, fresh) as here:
            await here.redis.mset({keys.schema(): 0, "xl3m:0:{s}:log": 1})
            async with here.redis.pubsub() as worker:
                await worker.subscribe(keys.query_channel())
                code, output = await xl3m_rebuild(here, "--all")
            assert code == 2 and "stop them first" in output
            assert await here.redis.get(keys.schema()) == b"0"
            code, output = await xl3m_rebuild(here, "--stream", "s")
            assert code == 2 and "xl3m rebuild --all" in output
            code, output = await xl3m_rebuild(here, "--all")
            assert code == 0 and "1 keys of an older version are gone" in output
            names: list[Any] = await here.redis.keys()
            assert names == [keys.schema().encode()]


@pytest.mark.guarantee("Rebuild")
async def test_all_streams_rebuilt_at_once_end_in_the_same_state(
    durable_broker: Service, tmp_path: Path, fresh: Fresh
) -> None:
    with services.redis(tmp_path / "r") as redis:
        async with site(durable_broker.url, redis.url, tmp_path, fresh) as here:
            texts = await fed(here, fresh, 4)
            await here.stop(here.workers[0])
            logs = {stream: await entries(here, stream) for stream in texts}
            await here.store.register_streams([(fresh("asked and never fed"), "")], PLENTY)
            code, output = await xl3m_rebuild(here, "--all")
            assert code == 0 and len(output.splitlines()) == 6
            await here.start()
            for stream, text in texts.items():
                await settled(here, stream, text)
                assert await entries(here, stream) == logs[stream]
