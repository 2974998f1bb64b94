"""The feeder: what is read is what the file holds, in whole records, whatever happens to it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast, get_args

import pytest
from aiokafka import AIOKafkaProducer
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from stream_app import embedded
from stream_app.embedded import Service
from stream_app.feeding import opened, pieces, sources
from stream_app.feeding.feeder import Feeder, feeding
from stream_app.feeding.pace import LOOK_SECONDS, Pace
from stream_app.feeding.reader import read_file
from stream_app.formats.tokens import TokenDecoder
from stream_app.settings import Format, Settings
from stream_app.state import Move
from stream_app.store import StreamStore
from tests.workers import fresh_topics

Fresh = Callable[[str], str]


class Sent(NamedTuple):
    """What a producer says of an event that the broker has."""

    topic: str
    partition: int
    offset: int


async def read(path: Path) -> list[str]:
    return [chunk async for chunk in read_file(path)]


@given(text=st.text(st.sampled_from("ab\n\r é気"), max_size=300), size=st.integers(1, 40))
def test_chunks_join_to_the_file_and_end_with_a_record(
    tmp_path_factory: pytest.TempPathFactory, text: str, size: int
) -> None:
    path = tmp_path_factory.mktemp("feed") / "log"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "CHUNK_BYTES", size)
        chunks = asyncio.run(read(path))
    assert "".join(chunks) == text
    assert all(chunk.endswith("\n") for chunk in chunks[:-1])


@given(
    text=st.text(st.sampled_from('ab\n\\" é気'), min_size=1, max_size=200),
    form=st.sampled_from(get_args(Format)),
    key_field=st.sampled_from(["", "host"]),
    limit=st.integers(40, 120),
)
def test_what_is_sent_is_what_a_worker_of_these_settings_takes(
    text: str, form: Format, key_field: str, limit: int
) -> None:
    settings = Settings(format=form, key_field=key_field, max_event_bytes=limit)
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


def test_a_record_without_end_comes_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("x" * (3 * pieces.LONGEST_RECORD))
    chunks = asyncio.run(read(path))
    assert "".join(chunks) == "x" * (3 * pieces.LONGEST_RECORD)
    assert max(map(len, chunks)) <= pieces.LONGEST_RECORD + opened.CHUNK_BYTES


def test_bytes_that_are_no_utf8_do_not_stop_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"caf\xe9\nok\n")
    assert asyncio.run(read(path)) == ["caf\N{REPLACEMENT CHARACTER}\nok\n"]


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


async def test_whoever_paces_waits_for_the_consumer(redis_client: Redis, fresh: Fresh) -> None:
    store, topic = StreamStore(redis_client, 1, 1), fresh("topic")
    pace = Pace(store, limit=20)
    for offset in range(2):
        await pace.wait(Sent(topic, 0, offset), 10)
    waiting = asyncio.create_task(pace.wait(Sent(topic, 0, 2), 10))
    await store.move_positions([Move(f"{topic}/1", 0, None, 9)])  # another partition
    done, _ = await asyncio.wait([waiting], timeout=3 * LOOK_SECONDS)
    assert not done
    await store.move_positions([Move(f"{topic}/0", 0, None, 1)])
    await asyncio.wait_for(waiting, 20)
    assert pace.bytes == 20


async def test_only_a_broker_that_drops_is_paced(
    broker: Service, redis_client: Redis, tmp_path: Path, fresh: Fresh
) -> None:
    store = StreamStore(redis_client, 1, 1)
    names = fresh_topics(fresh)
    with embedded.kafka(tmp_path) as mock:
        for service in (mock, broker):
            async with feeding(Settings(broker=service.url, **names), store) as made:
                assert bool(made.pace) == (not service.durable)


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
    found = sources.find([str(tmp_path)], follow=False)
    assert [source.stream for source in found.sources] == ["a/x.log", "b.log"]
    assert list(found.passed_over) == [tmp_path / "c.bin"]
    (one,) = sources.find([str(tmp_path / "b.log")], follow=False).sources
    assert one.stream == "b.log"
