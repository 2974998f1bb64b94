"""The fuzz targets: every kind of input, as a function of bytes.

A target returns if it accepts its input, and raises an XL3MError (or a click error) with a reason
if it refuses it; any other exception is a fault.
"""

import asyncio
import json
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import msgpack
from aiokafka import TopicPartition
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from stream_app.cli import main
from stream_app.events import (
    STREAM_BYTES,
    dead_letter,
    decode,
    encode,
)
from stream_app.feeding import chunking, open_file
from stream_app.feeding.file_types import detect_compression, detect_text
from stream_app.feeding.transcripts import is_transcript
from stream_app.formats.keys import READERS
from stream_app.formats.layout import Layout
from stream_app.formats.presets import PRESETS
from stream_app.formats.times import LATEST, parse_time
from stream_app.ingest.decoder import EXTRA_CHARS, GROWTH, TokenDecoder
from stream_app.kafka.fetch_state import FetchState
from stream_app.kafka.fetcher import KEPT_BYTES, PartitionRecords
from stream_app.kafka.record_batch import FetchedRecords
from stream_app.kafka.records import first_offset, unreadable_reason
from stream_app.requests import decode_query, decode_question, id_of, sender_of
from stream_app.settings import Settings
from stream_app.settings.variables import variable
from stream_app.store.codec import pack_tail, unpack_tail
from stream_app.store.keys import DEFAULT_KEYS as keys
from stream_app.store.keys import question_id
from tests.support import raw
from tests.support.files import read_file
from tests.support.raw import Raw
from tests.system.fuzz import wire
from xl3m_core import Engine, LanguageModel, Segment, Tail, XL3MError
from xl3m_core.segmenter import Segmenter

LIMIT = 4096
REFUSALS = (XL3MError, click.ClickException)

MAPS: list[dict[str, Any]] = [
    {"text": "pump 7\n", "time": 1_700_000_000.5, "stream": "s/ü"},
    {"ids": [5, 6, 700], "time": "2024-05-01T12:00:00Z"},
    {"id": "q", "stream": "a b", "question": "Which?", "deadline": 3, "add": True},
    {"text": "</s><s>", "time": -1, "question": None, "deadline": 1e300},
    {"id": "q", "stream": "a b", "question": "Which?", "deadline": 3},
    {"stream": "a b", "question": "Which?", "add": True},
]
VALUES: list[Any] = [
    *(None, True, 0, -1, 7, 2**40, 2**63, 1.5, -0.0, 1e300, float("nan"), float("inf")),
    *("", " ", "x", "x" * 257, "é" * 128, "\0", "\n\r\u2028", "../%2e", "</s>", "2024-05-01"),
    *("0001-01-01T00:00:00+14:00", [], [1], {}, {"a": []}),
]
# Every field of every map with every value.
FIELDS = [made | {name: value} for made in MAPS for name in made for value in VALUES]
TEXTS = [
    *(b"", b"\n", b"pump\n\n seven\n", "気圧 é\n".encode(), b"\xff\xfe\x00", b"\xed\xa0\x80"),
    *(b"../%2e%2e/{x}:*", b"<s></s><|im_end|><0x0A>", b" " * 300, b"\n" * 300, b"a" * 300),
]
EVENTS = [
    *TEXTS,
    *(json.dumps(fields).encode() for fields in MAPS + FIELDS),
    *(bytes(msgpack.packb(fields)) for fields in MAPS + FIELDS),
    b'{"text": "\\ud800", "text": "twice", "time": NaN}',
    b'{"text":' + b"[" * 600 + b"]" * 600 + b"}",
    b"\x81\xa4text" + b"\x91" * 600 + b"\xc0",
    b"\x81\xa4text\xdf\xff\xff\xff\xff",
]
CASES = Path(__file__).parents[2] / "cases"
# Events of real producers, whole and line by line.
PRODUCED = [
    part
    for file in sorted(CASES.glob("*.json*"))
    for whole in [file.read_bytes()]
    for part in [whole[:LIMIT], *whole.splitlines()]
]
KEYED = [bytes([3]) + b"key" + event for event in EVENTS]
MISNAMED = [
    bytes([3]) + b"key" + before + json.dumps({"id": 7, "question": "q?", name: value}).encode()
    for before in (b"", b" ", b"\xef\xbb\xbf")
    for name, value in (("window", "1h"), ("k", 10), ("stream", ["a", "b"]), ("\xff", None))
]


@dataclass(frozen=True, slots=True)
class Target:
    """A function to fuzz, its first inputs, and its weight in the share of all inputs."""

    name: str
    call: Callable[[bytes], object]
    seeds: Sequence[bytes]
    weight: float = 1.0


@lru_cache
def engine() -> Engine:
    """An engine on the bundled model, for its tokenizer."""
    return Engine(LanguageModel.load())


def _keyed(data: bytes) -> tuple[bytes | None, bytes | None]:
    """Key and value: the first byte is the key's length, 255 means no key."""
    size = data[0] if data else 255
    return (None, data[1:]) if size == 255 else (data[1 : 1 + size], data[1 + size :])


def _text(data: bytes) -> str:
    """Any text, including lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def chunk_in(format: Any, **changes: Any) -> Callable[[bytes], None]:
    """A target: an event of the tokens topic, in that format."""
    settings = Settings(input_format=format, max_event_bytes=LIMIT, **changes)
    decoder = TokenDecoder(settings, lambda ids: engine().model.decode_fragment(ids))

    def call(data: bytes) -> None:
        key, value = _keyed(data)
        headers = [("tenant", key), ("trace", None)]
        chunks, reason = decoder.decode(key, value, source="t/0", time_ms=1000, headers=headers)
        assert sum(len(chunk.text) for chunk in chunks) <= GROWTH * len(value or b"") + EXTRA_CHARS
        reason.encode()
        for chunk in chunks:
            assert 1 <= len(chunk.stream.encode()) <= STREAM_BYTES
            assert 0 <= chunk.time_ms < 10**15
            assert chunk.text.encode()

    return call


def a_time(data: bytes) -> None:
    """A time in any form."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = _text(data)
    found = parse_time(value, 10**12)
    assert found is None or 0 < found < LATEST


def a_layout(data: bytes) -> None:
    """A format setting: rejected at start, or usable for any record."""
    name, _, text = _text(data).partition("\n")
    if name not in LAYOUT:
        name = LAYOUT[len(name) % len(LAYOUT)]
    given: dict[str, Any] = {"input_format": "json", name: text}
    made = Layout.of(Settings(**given))
    for record in ({"text": "x"}, {"a": {"b": [1, {"key": "c"}]}}, {"a.b": {"c": 1}}, None):
        for scopes in made.fan_out(record):
            for render in (made.text, made.key, *made.times):
                if render is not None:
                    render(scopes)
            assert made.has_text(scopes) in (True, False)


def fetched(data: bytes) -> None:
    """A fetched part of a partition: a byte that says whether to repair checksums, so that the
    code after the check is reached, then batches. The result is records, or placeholders with
    the reason they are unreadable, in the order of offsets."""
    sent = _repair_checksums(data[1:]) if data[:1] > b"\x01" else data[1:]
    state = FetchState(max_batch_bytes=1 << 20, isolation_level="read_committed")
    tp, aborted = TopicPartition("t", 0), [(3, 9)]
    records = PartitionRecords(state, tp, FetchedRecords(sent), aborted, 7, None, None, True, 1)
    last = 6
    for record in records:
        assert last < first_offset(record) <= record.offset < records.next_fetch_offset
        last = record.offset
        assert all(isinstance(name, str) for name, _ in record.headers)
        if unreadable_reason(record):
            assert len(record.value) <= KEPT_BYTES
            unreadable_reason(record).encode()


def _repair_checksums(data: bytes) -> bytes:
    """The batches with valid checksums, and with a valid length where it was not."""
    repaired, at = bytearray(data), 0
    while at + 61 <= len(repaired):
        [length] = struct.unpack_from(">i", repaired, at + 8)
        if not 49 <= length <= len(repaired) - at - 12:
            length = len(repaired) - at - 12
            struct.pack_into(">i", repaired, at + 8, length)
        if repaired[at + 16] >= 2:
            checksum = calc_crc32c(bytes(repaired[at + 21 : at + 12 + length]))
            struct.pack_into(">I", repaired, at + 17, checksum)
        else:
            checksum = zlib.crc32(repaired[at + 16 : at + 12 + length])
            struct.pack_into(">I", repaired, at + 12, checksum)
        at += 12 + length
    return bytes(repaired)


def _batches() -> list[bytes]:
    """Valid batches of each codec and format, with and without the flag to repair checksums."""
    odd = Raw(b"odd", None, [(b"\xff", b"\xff"), (b"", None)])
    records = [Raw(b"a line\n" * 9, b"key", [(b"name", b"v")]), Raw(None), odd]
    made = [
        raw.batch(records, codec, base, attributes=flags, producer=producer)
        for codec in raw.CODECS.values()
        for base in (7, 9)
        for flags, producer in ((0, -1), (raw.TRANSACTIONAL, 3), (raw.LOG_APPEND_TIME, -1))
    ]
    ended = Raw(b"\0" * 6, b"\0\0\0\0")
    flags = raw.TRANSACTIONAL | raw.CONTROL
    made += [raw.batch([ended], 0, 7, attributes=flags, producer=3)]
    for magic, codec in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)):
        old = LegacyRecordBatchBuilder(magic, codec, 9999)
        for offset in range(7, 10):
            old.append(offset, 1000, b"key", b"value")
        made += [bytes(old.build())]
    made += [one + other for one, other in zip(made, made[5:], strict=False)]
    return [flag + data for data in made for flag in (b"\0", b"\xff", b"\xff")]


def question(data: bytes) -> None:
    """An event of the questions topic."""
    found = decode_question(*_keyed(data), LIMIT)
    assert 1 <= len(found.stream.encode()) <= STREAM_BYTES
    if found.question is not None:
        assert found.question.strip()
        engine().encoded.__wrapped__(found.question)  # as the agent does, but without its cache


def query(data: bytes) -> None:
    """An event of the queries topic."""
    found = decode_query(*_keyed(data), LIMIT, "t/0/1")
    assert 1 <= len(found.stream.encode()) <= STREAM_BYTES
    assert 1 <= len(found.id.encode()) <= STREAM_BYTES
    assert found.deadline is None or 0 <= found.deadline <= 90
    encode({"id": found.id, "stream": found.stream, "question": found.question}, found.as_json)


def query_of_any_text(data: bytes) -> None:
    """An event of the queries topic, with invalid UTF-8 replaced. The sender of a bad one gets an
    error if its id can be read."""
    key, value = _keyed(data)
    sender = sender_of(key, value, LIMIT)
    encode({"id": sender.id, "stream": sender.stream, "question": sender.question})
    fields = [*decode_fields(value)]
    found = decode_query(key, value, LIMIT, "t/0/1", "replace")
    assert not {*fields} - {"id", "stream", "question", "deadline"}
    (found.question or "").encode()


def decode_fields(value: bytes | None) -> dict[str, Any]:
    """The fields of a value that is a map, as any client would read it."""
    try:
        return decode(value or b"")
    except XL3MError:
        return {}


def pubsub(data: bytes) -> None:
    """A message to the pub/sub endpoint; a rejected one still has a channel for the error."""
    keys.answer_channel(id_of(data, LIMIT)).encode()
    found = decode_query(None, data, LIMIT)
    keys.lease(found.id).encode("ascii")


def any_map(data: bytes) -> None:
    """An answer, or an update of a stream, as a client decodes it."""
    assert isinstance(decode(data), dict)


def letter(data: bytes) -> None:
    """An unusable event, which must always make a dead letter."""
    key, value = _keyed(data)
    reason = data.decode("utf-8", "replace")
    assert len(json.loads(dead_letter("t", 0, 7, key, value, reason))["reason"]) <= STREAM_BYTES


def key_names(data: bytes) -> None:
    """The names of a stream and a question in Redis keys."""
    stream, other = _keyed(data)
    found = decode_question(stream, b"q?", LIMIT)
    name = keys.log(found.stream)
    assert re.fullmatch(r"xl3m:\d+:\{[A-Za-z0-9._:/~%-]+\}:log", name)
    words = (other or b"").decode("utf-8", "replace")
    qid = question_id(words, found.stream)
    assert re.fullmatch("[0-9a-f]{24}", qid)


def settings(data: bytes) -> None:
    """The environment: per line, a byte that chooses the setting, and its value."""
    names = [*map(variable, Settings.model_fields)]
    lines = [line for line in data.split(b"\n") if line]
    made = Settings.from_env({names[line[0] % len(names)]: _text(line[1:]) for line in lines})
    assert made.broker_address
    made.method(512)


def arguments(data: bytes) -> None:
    """A command line: one word per line; the first one chooses the command."""
    words = _text(data.replace(b"\0", b"")).split("\n")
    names = sorted(main.cli.commands)
    name = names[len(words[0]) % len(names)]
    try:
        made = main.cli.commands[name].make_context(name, words[1:])
    except click.exceptions.Exit:  # --help
        return
    for given in ("stream", "question"):
        (made.params.get(given) or "").encode()


_FILE = Path(tempfile.gettempdir()) / f"xl3m-fuzz-{os.getpid()}"
_LOOP = asyncio.new_event_loop()


def reader(data: bytes) -> None:
    """A file of any bytes, read in chunks of any size: the text is complete."""
    size, longest, data = (data[0] + 1, data[1] + 1, data[2:]) if len(data) > 1 else (7, 9, data)
    before = open_file.CHUNK_BYTES, chunking.MAX_RECORD_BYTES
    open_file.CHUNK_BYTES, chunking.MAX_RECORD_BYTES = size, longest
    _FILE.write_bytes(data)
    try:
        chunks = _LOOP.run_until_complete(_read())
    finally:
        open_file.CHUNK_BYTES, chunking.MAX_RECORD_BYTES = before
        _FILE.unlink()
    text = detect_text(data)
    if not (text.refusal or detect_compression(data) or is_transcript(data, [data])):
        held = data[text.bom_bytes :].decode(text.encoding, "replace")
        assert "".join(chunks) == held


async def _read() -> list[str]:
    return [chunk async for chunk in read_file(_FILE)]


def _bytes_of(texts: Sequence[str]) -> list[int]:
    return [len(text.encode("utf-8", "surrogatepass")) for text in texts]


def segments(data: bytes) -> None:
    """Any text in any chunks: the segments are the same and cover it; the tail can be stored."""
    size, overlap, cut = (data[0] % 40 + 1, data[1], data[2] + 1) if len(data) > 2 else (5, 1, 3)
    text = _text(data[3:1500])  # one character per chunk: more would take a tenth of a second
    counted = engine().model.count_tokens if data[:1] > b"\x80" else _bytes_of
    segmenter = Segmenter(counted, size, overlap % size)
    whole, tail = _cut(segmenter, [text])
    parts, _ = _cut(segmenter, [text[i : i + cut] for i in range(0, len(text), cut)])
    assert whole == parts
    covered = 0
    for segment in whole:
        assert segment.text == text[segment.start : segment.end]
        assert segment.start <= covered < segment.end
        covered = segment.end
    assert covered == len(text)
    if text.isascii():
        assert unpack_tail(pack_tail(tail)) == tail


def _cut(segmenter: Segmenter, chunks: list[str]) -> tuple[list[Segment], Tail]:
    tail, done = Tail(), list[Segment]()
    for chunk in chunks:
        tail, new = segmenter.push(tail, chunk)
        done += new
    return done + segmenter.flush(tail), tail


def tokenizer(data: bytes) -> None:
    """Any text as token ids, none of them special, and decoded again."""
    model, text = engine().model, _text(data)
    ids = model.encode([text])[0]
    assert not set(ids) & set(model.tokenizer.all_special_ids)
    if text == data.decode("utf-8", "replace"):
        assert model.decode_fragment(ids) == text


def token_ids(data: bytes) -> None:
    """Any token ids, two bytes each, as text."""
    pairs = [int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2)]
    value = msgpack.packb({"ids": pairs})
    chunk_in("msgpack")(b"\x01s" + bytes(value))


LAYOUT = ("text", "text_field", "time_field", "key_field", "records_field", "time_from_line")
TIMES: list[Any] = [
    *("30/Nov/2026:10:00:00 +0000", "Nov 30 10:00:00", "Mon, 30 Nov 2026 10:00:00 GMT"),
    *("Monday, November 30, 2026 10:00:00 AM", "11/30/2026 10:00", "E1130 10:00:00.25"),
    *({"$date": {"$numberLong": "1764496800123"}}, {"seconds": "1764496800", "nanos": 5}),
    *(1764496800123456789, "1764496800.123", "2026-11-30T10:00:00.123Z[UTC]"),
]
FIELDS_OF_RECORDS = {
    "records_field": "resourceLogs[].scopeLogs[].logRecords[]",
    "text": "{body} {message,text}",
    "time_field": "timeUnixNano,ts,time",
    "key_field": "{resource.attributes[service.name]}/{host.name}",
}
PRODUCED_KEYED = [bytes([3]) + b"key" + event for event in PRODUCED + EVENTS[:40]]

LINES = [b"\x00kafka://h:1\n\x01redis://h/0\n\x034\n\x0bjson", b"\x01unix:///x", b"\x10nan"]
WORDS = [b"a\ns\nq?\n--deadline\nnan", b"abc\n-\n--stream\n\xff", b"abcde\n/etc/hostname\n-q\nx"]
SIZED = [b"\x04\x02\x03" + text for text in TEXTS] + [b"\x84\x02\x03" + text for text in TEXTS]

TARGETS = (
    Target("fetched", fetched, _batches(), 3.0),
    Target("lines", chunk_in("lines"), KEYED),
    Target("json", chunk_in("json"), KEYED),
    Target("json, stream in a field", chunk_in("json", key_field="stream"), KEYED),
    Target("json, fields of a record", chunk_in("json", **FIELDS_OF_RECORDS), PRODUCED_KEYED),
    Target("json, a header", chunk_in("json", key_field="header:tenant"), KEYED, 0.3),
    *(Target(f"json:{name}", chunk_in(f"json:{name}"), PRODUCED_KEYED, 0.3) for name in PRESETS),
    Target("cri", chunk_in("cri"), KEYED, 0.3),
    Target("lines, replaced", chunk_in("lines", encoding="replace"), KEYED, 0.3),
    Target("lines, their time", chunk_in("lines", time_from_line="auto"), KEYED),
    *(Target(f"keys, {form}", chunk_in("lines", key_format=form), KEYED, 0.2) for form in READERS),
    Target("times", a_time, [json.dumps(value).encode() for value in VALUES + TIMES]),
    Target(
        "layouts", a_layout, [b"text\n{a} {b.c}", b"key_field\nheader:x", b"time_from_line\n%F %T"]
    ),
    Target("registry", wire.framed_value, wire.SEEDS),
    Target("registry, lines", wire.framed_line, wire.SEEDS, 0.5),
    Target("registry, keys", wire.framed_key, wire.SEEDS, 0.5),
    Target("registry, by a header", wire.headed_value, wire.HEADED, 0.5),
    Target("no registry", wire.without_registry, [b"\0\0\0" + s for s in wire.SEEDS], 0.5),
    Target("msgpack", chunk_in("msgpack"), KEYED),
    Target("token ids", token_ids, [b"\0\5\2\0", b"\xff\xff", b""]),
    Target("question", question, KEYED),
    Target("query", query, KEYED),
    Target("query of any text", query_of_any_text, KEYED + MISNAMED),
    Target("pub/sub", pubsub, EVENTS),
    Target("answer", any_map, EVENTS),
    Target("dead letter", letter, KEYED),
    Target("keys", key_names, KEYED),
    Target("settings", settings, LINES),
    Target("command line", arguments, WORDS, 0.3),
    Target("file", reader, SIZED, 0.1),
    Target("segments", segments, SIZED, 0.1),
    Target("tokenizer", tokenizer, TEXTS, 0.5),
)
