"""The feeder: it sends the file's content in whole records, also when the file is changed."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import pytest
from aiokafka import AIOKafkaProducer
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app.cli import feed
from stream_app.embedded import services
from stream_app.embedded.services import Service
from stream_app.errors import SettingsError, UnreachableError
from stream_app.feeding import chunking, discovery, feeder, open_file, reader, recovery
from stream_app.feeding.checkpoint_file import CheckpointFile
from stream_app.feeding.checkpoints import Checkpoints
from stream_app.feeding.chunking import Chunk
from stream_app.feeding.encoder import EventEncoder
from stream_app.feeding.feeder import Feeder, open_feeder
from stream_app.feeding.fingerprint import Fingerprint
from stream_app.feeding.recovery import apply_header
from stream_app.feeding.source import ReadOptions, Source
from stream_app.feeding.throttle import LOOK_SECONDS, Throttle
from stream_app.ingest.decoder import TokenDecoder
from stream_app.settings import Format, Settings
from stream_app.store.state import PositionUpdate, Retention
from stream_app.store.store import StreamStore
from stream_app.testing import until
from tests.support.files import read_file
from tests.support.workers import fresh_topics

Fresh = Callable[[str], str]


class Sent(NamedTuple):
    """The metadata of an event that the broker has confirmed."""

    topic: str
    partition: int
    offset: int


async def read(path: Path) -> list[str]:
    return [chunk async for chunk in read_file(path)]


@pytest.mark.guarantee("Feeding")
@given(text=st.text(st.sampled_from("ab\n\r é気"), max_size=300), size=st.integers(1, 40))
def test_chunks_join_to_the_file_and_end_with_a_record(
    tmp_path_factory: pytest.TempPathFactory, text: str, size: int
) -> None:
    path = tmp_path_factory.mktemp("feed") / "log"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_file, "CHUNK_BYTES", size)
        chunks = asyncio.run(read(path))
    assert "".join(chunks) == text
    assert all(chunk.endswith("\n") for chunk in chunks[:-1])


@pytest.mark.guarantee("Feeding")
@given(
    text=st.text(st.sampled_from('ab\n\\" é気'), min_size=1, max_size=200),
    form=st.sampled_from(get_args(Format)),
    key_field=st.sampled_from(["", "host"]),
    limit=st.integers(40, 120),
)
def test_what_is_sent_is_what_a_worker_of_these_settings_takes(
    text: str, form: Format, key_field: str, limit: int
) -> None:
    key_field = key_field if form in ("json", "msgpack") else ""
    settings = Settings(input_format=form, key_field=key_field, max_event_bytes=limit)
    values = Feeder(settings, cast(AIOKafkaProducer, None), None).values("web-1", text)
    decoder = TokenDecoder(settings, lambda _: "")
    chunks = [
        chunk
        for value in values
        for chunk in decoder.decode(b"web-1", value, source="t/0", time_ms=0)[0]
    ]
    assert {chunk.stream for chunk in chunks} == {"web-1"}
    taken = "".join(chunk.text for chunk in chunks)
    assert taken.replace("\n", "") == text.replace("\n", "")
    if len(values) == 1:
        assert taken.removesuffix("\n") == text.removesuffix("\n")


@pytest.mark.guarantee("Feeding")
def test_a_record_without_end_comes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("x" * (3 * chunking.MAX_RECORD_BYTES))
    chunks = asyncio.run(read(path))
    assert "".join(chunks) == "x" * (3 * chunking.MAX_RECORD_BYTES)
    assert max(map(len, chunks)) <= chunking.MAX_RECORD_BYTES + open_file.CHUNK_BYTES


def test_bytes_that_are_no_utf8_do_not_stop_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"caf\xe9\nok\n")
    assert asyncio.run(read(path)) == ["caf\N{REPLACEMENT CHARACTER}\nok\n"]


@pytest.mark.guarantee("Feeding")
async def test_following_goes_on_through_growth_truncation_and_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntw")
    chunks = read_file(path, follow=True)
    assert await anext(chunks) == "one\n"
    with path.open("a") as file:
        file.write("o\n")
    assert await anext(chunks) == "two\n"
    path.write_text("3\n")
    assert await anext(chunks) == "3\n"
    old = path.open("a")
    path.rename(tmp_path / "log.1")
    old.write("last of the old\n")
    old.close()
    path.write_text("four\n")
    assert await anext(chunks) == "last of the old\n"
    assert await anext(chunks) == "four\n"


@pytest.mark.guarantee("Feeding")
async def test_what_is_cut_off_before_it_was_read_is_lost_and_what_follows_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    path.write_text("one\n")
    chunks = read_file(path, follow=True)
    assert await anext(chunks) == "one\n"
    with path.open("a") as file:
        file.write("never seen\n")
    path.write_text("2\n")
    assert await anext(chunks) == "2\n"
    for text in ("never seen\n", "three\n"):
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").rename(path)
    assert await anext(chunks) == "three\n"


@pytest.mark.guarantee("Feeding")
async def test_whoever_paces_waits_for_the_consumer(redis_client: Redis, fresh: Fresh) -> None:
    store, topic = StreamStore(redis_client, Retention(1, 1)), fresh("topic")
    pace = Throttle(store, limit=20)
    for offset in range(2):
        await pace.wait(Sent(topic, 0, offset), 10)
    waiting = asyncio.create_task(pace.wait(Sent(topic, 0, 2), 10))
    await store.partitions.move([PositionUpdate(f"{topic}/1", 0, None, 9)])  # another partition
    done, _ = await asyncio.wait([waiting], timeout=3 * LOOK_SECONDS)
    assert not done
    await store.partitions.move([PositionUpdate(f"{topic}/0", 0, None, 1)])
    await asyncio.wait_for(waiting, 20)
    assert pace.bytes == 20


@pytest.mark.guarantee("Feeding")
async def test_only_a_broker_that_drops_is_paced(
    broker: Service, redis_client: Redis, tmp_path: Path, fresh: Fresh
) -> None:
    store = StreamStore(redis_client, Retention(1, 1))
    names = fresh_topics(fresh)
    with services.kafka(tmp_path) as mock:
        for service in (mock, broker):
            async with open_feeder(Settings(broker=service.url, **names), store) as made:
                assert bool(made.throttle) == (not service.durable)


async def test_a_character_written_in_two_halves_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes("one\ncaf\xe9\n".encode()[:8])
    chunks = read_file(path, follow=True)
    assert await anext(chunks) == "one\n"
    with path.open("ab") as file:
        file.write("caf\xe9\n".encode()[4:])
    assert await anext(chunks) == "caf\xe9\n"
    await chunks.aclose()  # type: ignore[attr-defined]


def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/x.log", "b.log"):
        (tmp_path / name).write_text("line\n")
    (tmp_path / "c.bin").write_bytes(b"\0\1")
    found = discovery.discover([str(tmp_path)], follow=False)
    assert [source.stream for source in found.sources] == ["a/x.log", "b.log"]
    assert list(found.skipped) == [tmp_path / "c.bin"]
    (one,) = discovery.discover([str(tmp_path / "b.log")], follow=False).sources
    assert one.stream == "b.log"


@pytest.mark.guarantee("Feeding")
async def test_a_busy_writer_that_cuts_its_log_has_each_record_sent_once_and_whole(
    tmp_path: Path,
) -> None:
    """Truncated without a copy at any time: only unread text is lost."""
    path, written, last = tmp_path / "log", list[str](), "the last\n"
    path.touch()

    def write() -> None:
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        for number in range(20_000):
            written.append(f"{number} {uuid.uuid4().hex}\n")
            os.write(file, written[-1].encode())
            if number % 1500 == 1499:
                os.ftruncate(file, 0)
        os.write(file, last.encode())
        os.close(file)

    writing, read = asyncio.create_task(asyncio.to_thread(write)), ""
    chunks = read_file(path, follow=True)
    while not read.endswith(last):
        read += await asyncio.wait_for(anext(chunks), 60)
    await writing
    places = {line: number for number, line in enumerate([*written, last])}
    found = [places[line] for line in read.splitlines(keepends=True)]  # all are whole
    assert found == sorted(set(found))


@pytest.mark.guarantee("Feeding")
async def test_what_takes_nothing_for_too_long_is_given_up_with_what_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeder, "AWAY_SECONDS", 0.01)

    class Away:
        """A client whose broker never answers."""

        async def send(self, *_: Any, **__: Any) -> asyncio.Future[Any]:
            return asyncio.get_running_loop().create_future()

    async def one() -> AsyncIterator[str]:
        yield "one\n"

    made = Feeder(Settings(), cast(AIOKafkaProducer, Away()), None, give_up=0.05)
    with pytest.raises(UnreachableError, match="0 bytes were sent"):
        await made.feed("s", one(), lambda _: None)


class Later:
    """A client whose broker confirms an event when the test resolves its future."""

    def __init__(self) -> None:
        self.events = list[asyncio.Future[Any]]()

    async def send(self, *_: Any, **__: Any) -> asyncio.Future[Any]:
        self.events.append(asyncio.get_running_loop().create_future())
        return self.events[-1]


@pytest.mark.parametrize("is_confirmed", [True, False])
async def test_a_feed_that_is_told_to_end_notes_what_kafka_confirms_in_time(
    is_confirmed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends(_: Settings) -> dict[str, int]:
        return {"tokens/0": 7}

    monkeypatch.setattr(feed, "FINISH_SECONDS", 20.0 if is_confirmed else 0.05)
    monkeypatch.setattr(recovery, "end_offsets", ends)
    (tmp_path / "log").write_text("one\n")
    book, client, settings = CheckpointFile(tmp_path / "positions"), Later(), Settings()
    made = Feeder(settings, cast(AIOKafkaProducer, client), None, book)

    async def run() -> None:
        async with feed._saved(settings, book, made):
            source = Source(tmp_path / "log", "s", follow=True)
            await made.feed("s", reader.read(source, ReadOptions(book)), lambda _: None)

    running = asyncio.create_task(run())
    await until(lambda: bool(client.events))
    running.cancel()
    await asyncio.sleep(0)  # it was informed, and waits
    if is_confirmed:
        client.events[0].set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await running
    book.close()
    again = CheckpointFile(tmp_path / "positions")
    assert again.clean == is_confirmed
    assert sum(entry.sent for entry in again.entries.values()) == 4 * is_confirmed
    assert again.next_offsets == ({"tokens/0": 7} if is_confirmed else {})
    again.close()


async def test_what_is_confirmed_is_taken_down_in_order_while_nothing_more_comes(
    tmp_path: Path,
) -> None:
    path, book, client = tmp_path / "log", CheckpointFile(tmp_path / "positions"), Later()
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    made = Feeder(Settings(input_format="json"), cast(AIOKafkaProducer, client), None, book)
    source = Source(path, "s", follow=True)
    feeding = asyncio.create_task(
        made.feed("s", reader.read(source, ReadOptions(book)), lambda _: None)
    )
    await until(lambda: len(client.events) == 2)

    def sent() -> int:
        return sum(entry.sent for entry in book.entries.values())

    client.events[1].set_result(None)
    await asyncio.sleep(0.01)
    assert sent() == 0  # earlier events are not confirmed
    client.events[0].set_result(None)
    await until(lambda: sent() == path.stat().st_size)
    feeding.cancel()
    await asyncio.wait([feeding])
    book.close()


def test_the_topic_is_one_that_workers_read() -> None:
    one, two = Settings(tokens_topic="a"), Settings(tokens_topic="a,b")
    assert feed._topic(one, None) == "a" and feed._topic(two, "b") == "b"
    with pytest.raises(SettingsError, match="--topic"):
        feed._topic(two, None)
    with pytest.raises(SettingsError, match="do not read"):
        feed._topic(two, "c")


def test_a_piece_has_the_time_of_its_first_line() -> None:
    form = EventEncoder(Settings(time_from_line="auto"))
    text = b"2026-11-30T10:00:00Z a\n2026-11-30T10:00:05Z b\n"
    assert form.time_ms(Chunk(text)) == datetime(2026, 11, 30, 10, tzinfo=UTC).timestamp() * 1000
    assert form.time_ms(Chunk(b"no time\n")) is None
    assert EventEncoder(Settings()).time_ms(Chunk(text)) is None


class Taking:
    """A client whose broker confirms everything at once; keeps the headers."""

    def __init__(self) -> None:
        self.headers = list[list[tuple[str, bytes]]]()

    async def send(self, *_: Any, headers: Any, **__: Any) -> asyncio.Future[Any]:
        self.headers.append(headers)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@pytest.mark.guarantee("Feeding")
@pytest.mark.parametrize("form", ["json", "msgpack", "lines"])
async def test_a_position_is_behind_what_no_event_is_made_of(form: Any, tmp_path: Path) -> None:
    path, client = tmp_path / "log", Taking()
    path.write_bytes(b'{"text": "a"}\n\n\n{"text": "b"}\nca\xe9\n\n')
    book = CheckpointFile(tmp_path / "positions")
    made = Feeder(Settings(input_format=form), cast(AIOKafkaProducer, client), None, book)
    await made.feed("s", reader.read(Source(path, "s"), ReadOptions(book)), lambda _: None)
    (entry,) = (each for each in book.find(path, "s") if each.sent)
    with path.open("rb") as file:
        assert entry.sent == path.stat().st_size and entry.matches(file.fileno())
    seen = Checkpoints()
    seen.entries[entry.id] = again = replace(entry, sent=0, sent_hash=Fingerprint().hashed())
    for headers in client.headers:
        apply_header(seen, headers[0][1])
    with path.open("rb") as file:
        assert 0 < again.sent <= entry.sent and again.matches(file.fileno())
    book.close()


@pytest.mark.guarantee("Feeding")
@pytest.mark.parametrize("value", [b"", b"\xff", b"%s", b"%s:0:x", b"%s:0:9", b"%s:0:9:9:h:99:h"])
def test_a_header_that_somebody_made_up_moves_no_position(value: bytes, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\n")
    book = Checkpoints()
    with (tmp_path / "log").open("rb") as file:
        entry = book.add(tmp_path / "log", "s", file.fileno(), 0)
    apply_header(book, value.replace(b"%s", entry.id.encode()))
    assert entry.sent == 0 and entry.sent_hash == Fingerprint().hashed()
