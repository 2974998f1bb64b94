"""Input of `feed`: archives, encodings, transcripts, patterns, and the event of each line."""

import bz2
import contextlib
import gzip
import json
import lzma
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stream_app.cli.feed_report import _parts
from stream_app.errors import SettingsError
from stream_app.feeding import discovery
from stream_app.feeding.addressing import event_key
from stream_app.feeding.checkpoint_file import CheckpointFile
from stream_app.feeding.checkpoints import Checkpoints
from stream_app.feeding.chunking import Chunk, RecordRules, Splitter
from stream_app.feeding.compression import ArchiveError, decompress
from stream_app.feeding.content import extract, inspect
from stream_app.feeding.encoder import EventEncoder, FeedCounts
from stream_app.feeding.reader import read
from stream_app.feeding.source import ReadOptions, Source
from stream_app.feeding.start_offset import last_lines
from stream_app.formats.presets import FORMS, PRESETS
from stream_app.ingest.decoder import TokenDecoder
from stream_app.settings import Settings
from tests.support.files import is_transcript, transcript_records

CASES = Path(__file__).parents[1] / "cases"
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}


async def text_of(path: Path, **how: Any) -> tuple[str, list[str]]:
    """A file's text, and the warnings."""
    said = list[str]()
    pieces = read(Source(path, "s"), ReadOptions(report_error=said.append, **how))
    return "".join([piece.text() async for piece in pieces]), said


def values(lines: str | bytes, encoding: str = "utf-8", **settings: Any) -> list[bytes]:
    raw = lines if isinstance(lines, bytes) else lines.encode()
    form = EventEncoder(Settings(**settings))
    return [event.value for event in form.encode("s", Chunk(raw, encoding=encoding), FeedCounts())]


# -- archives --------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", PACK)
async def test_an_archive_is_read_by_what_it_is_member_after_member(
    packed: str, tmp_path: Path
) -> None:
    path = tmp_path / "any.name"
    parts = ["one\n", "two é\n" * 50_000, "three"]
    path.write_bytes(b"".join(PACK[packed](part.encode()) for part in parts))
    assert inspect(path).compression == packed
    assert await text_of(path) == ("".join(parts), [])


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("damage", ["cut", "flipped", "followed"])
async def test_what_can_be_read_of_a_damaged_archive_is_read_and_the_damage_named(
    packed: str, damage: str, tmp_path: Path
) -> None:
    text = "".join(f"{os.urandom(20).hex()}\n" for _ in range(20_000))
    data = bytearray(PACK[packed](text.encode()))
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[len(data) * 3 // 4] ^= 0xFF
    else:
        data += b"something else"
    path = tmp_path / "log"
    path.write_bytes(data)
    got, (complaint,) = await text_of(path)
    assert str(path) in complaint
    if damage != "flipped":
        assert text.startswith(got)
    if damage == "followed":
        assert got == text and "behind its end" in complaint
    elif packed in ("gzip", "zstd"):  # the other formats have blocks of 900 kB and more
        assert len(got) > len(text) // 4


@pytest.mark.guarantee("Feeding")
@pytest.mark.parametrize("packed", PACK)
def test_an_archive_of_zeros_is_read_a_bounded_piece_at_a_time(packed: str) -> None:
    data = PACK[packed](bytes(50_000_000))
    place = [0]

    def from_data(size: int) -> bytes:
        place[0] += size
        return data[place[0] - size : place[0]]

    sizes = [len(piece) for piece in decompress(packed, from_data)]
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 17_000_000 if packed == "zstd" else max(sizes) <= 65_536


@given(data=st.binary(max_size=200), packed=st.sampled_from(sorted(PACK)))
def test_no_bytes_behind_a_magic_do_more_than_name_the_damage(data: bytes, packed: str) -> None:
    data = PACK[packed](b"text\n")[:6] + data
    place = [0]

    def from_data(size: int) -> bytes:
        place[0] += size
        return data[place[0] - size : place[0]]

    with contextlib.suppress(ArchiveError):
        list(decompress(packed, from_data))


async def test_an_archive_comes_through_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(b"one\ntwo\n"),))
    writer.start()
    assert await text_of(pipe) == ("one\ntwo\n", [])
    writer.join()


# -- encodings -------------------------------------------------------------------------------


@given(
    text=st.text(st.sampled_from("ab\n\r é気😀\u0a0a"), max_size=200),
    encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-16-be"]),
    sizes=st.lists(st.integers(1, 30), min_size=1),
    longest=st.integers(4, 40),
)
def test_pieces_in_any_encoding_join_to_the_text_at_their_places(
    text: str, encoding: str, sizes: list[int], longest: int
) -> None:
    splitter = Splitter(0, encoding, None, RecordRules(max_bytes=longest))
    data, at = text.encode(encoding), 0
    pieces = list[Chunk]()
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces += splitter.push(data[at : at + size], more=len(pieces) % 2 == 0)
        at += size
    pieces += splitter.flush()
    assert "".join(piece.text() for piece in pieces) == text
    for piece in pieces:
        assert data[piece.start : piece.end] == piece.raw
        lines = list(piece.lines())
        assert b"".join(line.raw for line in lines) == piece.raw
        assert all("\n" not in line.text()[:-1] for line in lines)


async def test_the_cases_are_read_as_their_readme_says() -> None:
    assert await text_of(CASES / "u16.log") == ("utf sixteen web-5 down\n", [])
    assert await text_of(CASES / "old.log.gz") == ("hello disk full on web-3\n", [])
    found = discovery.discover([str(CASES)], follow=False)
    streams = {source.stream for source in found.sources}
    assert {"u16.log", "old.log"} <= streams and not found.skipped


async def test_the_mark_of_utf8_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xef\xbb\xbfone\n")
    assert await text_of(tmp_path / "log") == ("one\n", [])


@pytest.mark.guarantee("Feeding")
@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"%PDF-1.7 ...", "PDF"), (b"\x89PNG\r\n", "PNG"), (b"PK\x03\x04...", "zip"),
        (b"a\0b\0c\0\n\0", "iconv"), (b"\0\1\2\3\4", "NUL"), (gzip.compress(b"\0\0\1"), "NUL"),
        ("x\n".encode("utf-32"), "UTF-32"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused_by_name_and_passed_over_in_a_folder(
    data: bytes, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    (refused,) = discovery.discover([str(path)], follow=False).refused
    assert named in refused and str(path) in refused
    assert named in discovery.discover([str(tmp_path)], follow=False).skipped[path]


@pytest.mark.guarantee("Feeding")
def test_under_strict_a_line_that_is_no_text_is_an_event_of_its_own() -> None:
    counts, form = FeedCounts(), EventEncoder(Settings())
    piece = Chunk(b"one\ntwo\nca\xe9\nthree\n", start=100)
    events = list(form.encode("s", piece, counts))
    assert [event.value for event in events] == [b"one\ntwo\n", b"ca\xe9\n", b"three\n"]
    assert [event.chunk.end for event in events] == [108, 112, 118]
    assert (counts.undecodable, counts.undecodable_at) == (1, 108)


def test_under_replace_it_stays_where_it_is_with_a_mark() -> None:
    assert values(b"one\nca\xe9\nthree\n", encoding="utf-8") == [b"one\n", b"ca\xe9\n", b"three\n"]
    counts, form = FeedCounts(), EventEncoder(Settings(encoding="replace"))
    (event,) = form.encode("s", Chunk(b"one\nca\xe9\n"), counts)
    assert event.value.decode() == "one\nca\N{REPLACEMENT CHARACTER}\n"
    assert (counts.replaced, counts.undecodable_at) == (1, 4)


def test_msgpack_has_no_form_for_it_so_it_is_left_out_and_counted() -> None:
    counts, form = FeedCounts(), EventEncoder(Settings(input_format="msgpack"))
    assert len(list(form.encode("s", Chunk(b"one\nca\xe9\n"), counts))) == 1
    assert (counts.left_out, counts.undecodable_at) == (1, 4)


def test_half_a_pair_in_utf16_is_never_taken_for_utf8() -> None:
    raw = "ab\n".encode("utf-16-le") + b"a\0\x00\xd8b\0\n\0"
    form = EventEncoder(Settings())
    first, second = form.encode("s", Chunk(raw, encoding="utf-16-le"), FeedCounts())
    assert first.value == b"ab\n"
    with pytest.raises(UnicodeDecodeError):
        second.value.decode()


# -- JSON ------------------------------------------------------------------------------------


def test_lines_of_json_go_out_as_they_are_and_others_are_wrapped() -> None:
    given_lines = '{"message": "a"}\n[1, 2]\nplain\n  at x\n17\n\n {"b": 1}\n[2026] not json [x]\n'
    got = values(given_lines, input_format="json", text_field="message")
    assert got == [
        b'{"message": "a"}', b"[1, 2]", b'{"message": "plain\\n  at x\\n"}',
        b'{"message": "17\\n\\n"}', b'{"b": 1}', b'{"message": "[2026] not json [x]\\n"}',
    ]  # fmt: skip


@pytest.mark.parametrize("settings", [{"input_format": "json:ecs"}, {"text": "{a} {b}"}])
def test_where_the_text_comes_from_elsewhere_a_line_that_is_no_json_goes_as_it_is(
    settings: dict[str, str],
) -> None:
    assert values('{"a": 1}\nplain\n', **{"input_format": "json"} | settings) == [
        b'{"a": 1}',
        b"plain",
    ]


PRESET_FORMATS = [*sorted(PRESETS.keys() - FORMS), *(f"json:{name}" for name in PRESETS)]


@pytest.mark.parametrize("format", PRESET_FORMATS)
def test_under_any_preset_what_is_no_json_goes_as_it_is(format: str) -> None:
    assert values('{"a": 1}\nplain\n', input_format=format) == [b'{"a": 1}', b"plain"]


@pytest.mark.parametrize("indent", [None, 1, 4])
@pytest.mark.parametrize("packed", ["", "gzip"])
@pytest.mark.parametrize(
    ("format", "document"),
    [
        ("docker", {"log": "hello\n", "attrs": [{}, {"a": 1}], "more": ["x"] * 9000}),
        ("kubernetes", {"log": "hello", "kubernetes": {"pod_name": "s", "labels": [{}, []]}}),
        ("journald", {"MESSAGE": "hello", "list": [[1], [2]]}),
        ("cloudwatch", {"logGroup": "g", "logStream": "t", "logEvents": [{"message": "hello"}]}),
        ("otlp", {"resourceLogs": [
            {"scopeLogs": [{"logRecords": [{"body": {"stringValue": "hello"}}]}]}, {},
        ]}),
    ],
)  # fmt: skip
async def test_documents_of_several_lines_are_read_by_a_worker_of_the_preset(
    format: str, document: Any, packed: str, indent: int | None, tmp_path: Path
) -> None:
    settings, path, said = Settings(input_format=format), tmp_path / "log", list[str]()
    data = (json.dumps(document, indent=indent) + "\n").encode() * 3
    path.write_bytes(PACK[packed](data) if packed else data)
    form, counts = EventEncoder(settings), FeedCounts()
    rules = RecordRules(form.starts, form.max_bytes, form.is_raw)
    pieces = [each async for each in read(Source(path, "s"), ReadOptions(rules=rules))]
    decoder = TokenDecoder(settings, lambda _: "")
    for value in (e.value for piece in pieces for e in form.encode("s", piece, counts)):
        chunks, wrong = decoder.decode(b"s", value, source="t/0", time_ms=0)
        said += [chunk.text for chunk in chunks]
        assert not wrong and json.loads(value) == document
    assert said == ["hello\n"] * 3


@pytest.mark.parametrize("name", ["", "message", "log.message"])
def test_a_line_that_is_no_json_is_read_from_the_field_it_is_put_in(name: str) -> None:
    settings = Settings(input_format="json", text_field=name)
    (value,) = values("plain\n", input_format="json", text_field=name)
    chunks, _ = TokenDecoder(settings, lambda _: "").decode(b"s", value, source="t/0", time_ms=0)
    assert [chunk.text for chunk in chunks] == ["plain\n"]


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        (FeedCounts(1, 1, 1, not_json=1), ["1 line, 1 byte in 1 event", "1 record is not JSON"]),
        (
            FeedCounts(2, 2, 2, not_json=2),
            ["2 lines, 2 bytes in 2 events", "2 records are not JSON"],
        ),
        (FeedCounts(0, 0, 0), ["0 lines, 0 bytes in 0 events"]),
    ],
)
def test_the_summary_counts_as_a_person_does(counts: FeedCounts, wanted: list[str]) -> None:
    assert [*_parts(counts)] == wanted


def test_a_long_line_of_json_stays_whole() -> None:
    line = json.dumps({"text": "x" * 300_000}) + "\n"
    form = EventEncoder(Settings(input_format="json"))
    splitter = Splitter(rules=RecordRules(max_bytes=form.max_bytes))
    pieces = [
        p for at in range(0, len(line), 9000) for p in splitter.push(line.encode()[at : at + 9000])
    ]
    assert [e.value for p in pieces for e in form.encode("s", p, FeedCounts())] == [
        line.strip().encode()
    ]


@pytest.mark.parametrize(
    ("form", "name", "wanted"),
    [
        ("utf8", "é", "é".encode()), ("hex", "00ff", b"\0\xff"),
        ("long", "200", b"\0" * 7 + b"\xc8"),
        ("int", "-1", b"\xff" * 4), ("none", "x", b"x"),
    ],
)  # fmt: skip
def test_the_key_is_in_the_form_that_workers_read(form: Any, name: str, wanted: bytes) -> None:
    assert event_key(Settings(key_format=form), name) == wanted


@pytest.mark.parametrize("form", ["hex", "long", "int", "uuid"])
def test_a_name_that_cannot_be_such_a_key_is_refused(form: Any) -> None:
    with pytest.raises(SettingsError, match="XL3M_KEY_FORMAT"):
        event_key(Settings(key_format=form), "web-1")


# -- sources ---------------------------------------------------------------------------------


def test_names_folders_and_patterns_stand_for_each_file_once(tmp_path: Path) -> None:
    for name in ("a.log", "logs/b.log", "logs/c/d.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n")
    (tmp_path / "logs/old.log.gz").write_bytes(gzip.compress(b"x\n"))
    names = ["a.log", "logs/*.gz", "logs", "./a.log", "logs/**/*.log"]
    found = discovery.discover([str(tmp_path / name) for name in names], follow=False)
    assert [each.stream for each in found.sources] == ["a.log", "old.log", "b.log", "c/d.log"]
    one = discovery.discover([str(tmp_path)], follow=False, stream="all")
    assert {each.stream for each in one.sources} == {"all"}


def test_a_pattern_that_stands_for_nothing_is_named(tmp_path: Path) -> None:
    assert discovery.discover([f"{tmp_path}/*.gz"], follow=False).unmatched == [f"{tmp_path}/*.gz"]


def test_the_past_of_a_followed_file_is_read_once_and_first(tmp_path: Path) -> None:
    for name in ("app.log", "app.log.1"):
        (tmp_path / name).write_text("x\n")
    (tmp_path / "app.log.gz").write_bytes(gzip.compress(b"x\n"))
    found = discovery.discover([str(tmp_path)], follow=True).sources
    assert [(each.path.name, each.follow) for each in found] == [
        ("app.log.gz", False), ("app.log", True), ("app.log.1", False),
    ]  # fmt: skip


@given(
    text=st.text(st.sampled_from("ab\né"), max_size=60),
    count=st.integers(0, 8),
    encoding=st.sampled_from(["utf-8", "utf-16-le"]),
)
def test_the_last_lines_are_those_of_tail(
    tmp_path_factory: pytest.TempPathFactory, text: str, count: int, encoding: str
) -> None:
    path = tmp_path_factory.mktemp("tail") / "log"
    path.write_bytes(text.encode(encoding))
    with path.open("rb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream_app.feeding.start_offset._BACKWARD_BYTES", 8)
        start = last_lines(file.fileno(), count, encoding)
    lines = text.split("\n")
    lines = [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    wanted = lines[-count:] if count else ([lines[-1]] if lines and lines[-1][-1] != "\n" else [])
    assert text.encode(encoding)[start:].decode(encoding) == "".join(wanted)


@pytest.mark.parametrize("packed", ["", "gzip"])
async def test_the_last_lines_of_a_file_are_read(packed: str, tmp_path: Path) -> None:
    data = "".join(f"line {i}\n" for i in range(5000)).encode()
    (tmp_path / "log").write_bytes(PACK[packed](data) if packed else data)
    assert (await text_of(tmp_path / "log", last_lines=2))[0] == "line 4998\nline 4999\n"
    assert (await text_of(tmp_path / "log", last_lines=0))[0] == ""


# -- positions -------------------------------------------------------------------------------


@pytest.mark.guarantee("Feeding")
def test_two_feeders_do_not_share_a_position_file(tmp_path: Path) -> None:
    first = CheckpointFile(tmp_path / "p")
    with pytest.raises(SettingsError, match="another `xl3m feed`"):
        CheckpointFile(tmp_path / "p")
    first.close()
    CheckpointFile(tmp_path / "p").close()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"version": 2}', '{"version": 1, "next": 3}'])
def test_a_position_file_that_cannot_be_used_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "p").write_text(text)
    with pytest.raises(SettingsError, match="cannot be used"):
        CheckpointFile(tmp_path / "p")


@pytest.mark.guarantee("Feeding")
async def test_a_restart_goes_on_behind_what_was_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\n")
    for more, wanted in (("", "one\n"), ("two\n", "two\n"), ("", "")):
        with path.open("a") as file:
            file.write(more)
        book = CheckpointFile(tmp_path / "p")
        assert await confirmed(book, path) == wanted
        book.save()
        book.close()


async def confirmed(book: Checkpoints, path: Path) -> str:
    """The text that is read from the path, with all of it confirmed."""
    text = ""
    async for piece in read(Source(path, "s"), ReadOptions(book)):
        book.confirm(piece)
        text += piece.text()
    return text


async def test_an_archive_is_not_sent_again_also_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "log.1.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\n"))
    book = CheckpointFile(tmp_path / "p")
    assert await confirmed(book, path) == "one\ntwo\n"
    path.rename(tmp_path / "log.2.gz")
    book.save()
    book.close()
    book = CheckpointFile(tmp_path / "p")
    assert await confirmed(book, tmp_path / "log.2.gz") == ""
    book.close()


@pytest.mark.guarantee("Feeding")
async def test_another_file_with_the_inode_is_another_file(tmp_path: Path) -> None:
    path, book = tmp_path / "log", CheckpointFile(tmp_path / "p")
    path.write_text("one\n")
    assert await confirmed(book, path) == "one\n"
    path.write_text("other\n")  # the same inode
    assert await confirmed(book, path) == "other\n"
    book.close()


# -- transcripts -----------------------------------------------------------------------------

TALK = ["00:00:01 Anna: Hello all, let us begin.\n", "00:00:05 Bob: Yes.\n"]
VOICES = """WEBVTT

1
00:00:01.000 --> 00:00:03.000
<v Anna>Hello all,</v>

2
00:00:03.000 --> 00:00:05.000
<v Anna>let us begin.</v>

3
00:00:05.000 --> 00:00:06.000
<v.loud Bob>Yes.
"""
TRANSCRIPTS = {
    "teams.vtt": VOICES,
    "zoom.vtt": VOICES.replace("<v Anna>", "Anna: ").replace("</v>", "")
    .replace("<v.loud Bob>", "Bob: "),
    "talk.srt": "1\n00:00:01,000 --> 00:00:03,000\nAnna: Hello all,\n\n"
    "2\n00:00:03,000 --> 00:00:05,000\n"
    "Anna: let us begin.\n\n3\n00:00:05,000 --> 00:00:06,000\nBob: Yes.\n",
    "whisperx.json": json.dumps({"segments": [
        {"start": 1.0, "end": 3.0, "text": " Hello all,", "speaker": "Anna"},
        {"start": 3.0, "end": 5.0, "text": " let us begin.", "speaker": "Anna"},
        {"start": 5, "end": 6, "text": "Yes.", "speaker": "Bob"}, {"start": 6, "text": ""},
    ]}),
    "teams.json": json.dumps({"entries": [
        {"text": "Hello all,", "speakerDisplayName": "Anna", "startOffset": "00:00:01.5100000"},
        {"text": "let us begin.", "speakerDisplayName": "Anna", "startOffset": "00:00:03"},
        {"text": "Yes.", "speakerDisplayName": "Bob", "startOffset": "PT5.2S"},
    ]}, indent=2),
    "zoom.json": json.dumps([
        {"user_name": "Anna", "ts": "00:00:01.000", "text": "Hello all,", "id": 1},
        {"user_name": "Anna", "ts": "00:00:03.000", "text": "let us begin."},
        {"user_name": "Bob", "ts": "00:00:05.000", "text": "Yes."},
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSCRIPTS)
@pytest.mark.parametrize("packed", ["", "gzip"])
async def test_a_transcript_is_records_of_who_said_what_when(
    name: str, packed: str, tmp_path: Path
) -> None:
    path, data = tmp_path / "talk", TRANSCRIPTS[name].encode()
    path.write_bytes(PACK[packed](data) if packed else data)
    assert is_transcript(path)
    assert list(transcript_records(path)) == TALK
    assert await text_of(path) == ("".join(TALK), [])


def test_a_transcript_of_whisper_cpp_has_no_speakers(tmp_path: Path) -> None:
    cues = [{"timestamps": {"from": "00:01:02,500", "to": "x"}, "text": " Hi there."}]
    (tmp_path / "t").write_text(json.dumps({"model": {}, "transcription": cues}))
    assert list(transcript_records(tmp_path / "t")) == ["00:01:02 Hi there.\n"]


WORDS = st.lists(
    st.text(st.sampled_from("abcé气"), min_size=1, max_size=8), min_size=1, max_size=12
)


@pytest.mark.guarantee("Feeding")
@given(cues=st.lists(st.tuples(WORDS, st.integers(0, 5)), min_size=1, max_size=12))
@pytest.mark.parametrize("form", ["vtt", "srt"])
def test_no_word_of_a_malformed_cue_is_lost(
    form: str, tmp_path_factory: pytest.TempPathFactory, cues: list[tuple[list[str], int]]
) -> None:
    path = tmp_path_factory.mktemp("talk") / "t"
    comma = "," if form == "srt" else "."
    stamps = [
        "00:00:01{c}000 --> 00:00:02{c}000", "00:00:01{c}000 -> 00:00", "1:2{c}5 --> 3:4{c}1",
        "--> 00:00:01{c}000", "", "00:00:01{c}000 --> 00:00:02{c}000 align:start",
    ]  # fmt: skip
    start = "WEBVTT\n\n" if form == "vtt" else f"1\n{stamps[0].format(c=comma)}\nx\n\n"
    text = "\n\n".join(f"{stamps[s].format(c=comma)}\n{' '.join(words)}" for words, s in cues)
    path.write_text(start + text)
    said = "".join(transcript_records(path)).split()
    wanted = [word for words, _ in cues for word in words]
    assert [word for word in said if word in set(wanted)][-len(wanted) :] == wanted


@pytest.mark.parametrize(
    "text",
    [
        '{"text": "a", "segments": 3}', '{"start": 1, "text": "x"}\n{"start": 2, "text": "y"}\n',
        "WEBVTTER\n", '[{"text": "no times"}]', "1\nnot a subtitle\n", '{"segments": [{"a": 1}]}',
    ],
)  # fmt: skip
async def test_what_only_looks_like_a_transcript_is_read_as_it_is(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "t").write_text(text)
    assert not is_transcript(tmp_path / "t")
    assert await text_of(tmp_path / "t") == (text, [])


def test_a_long_monologue_is_cut_at_sentences(tmp_path: Path) -> None:
    cue = "00:00:{:02}.000 --> 00:00:59.000\n<v Anna>This is sentence {}.\n"
    cues = (cue.format(i, i) for i in range(50))
    (tmp_path / "t").write_text("WEBVTT\n\n" + "\n".join(cues))
    found = list(transcript_records(tmp_path / "t"))
    assert len(found) > 1 and all(each.endswith(".\n") for each in found)
    assert max(map(len, found)) < 600


def joined(pieces: Iterable[bytes]) -> bytes:
    return b"".join(pieces)


def test_a_plain_file_is_unpacked_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"x\n" * 100_000)
    assert joined(extract(tmp_path / "t")) == b"x\n" * 100_000
