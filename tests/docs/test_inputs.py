"""Each example of the tables of docs/inputs.md is decoded by the real decoder.

Where the page names what it means in words (`⏎`, *key*), this file knows the words. Values in a
registry's wire format are written by Confluent's own serializers.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest
from google.protobuf import json_format

from stream_app import events
from stream_app.errors import SettingsError
from stream_app.formats import documents, paths, templates, times
from stream_app.formats.keys import READERS, stream_of_key
from stream_app.formats.presets import FORMS, PRESETS, form_and_preset
from stream_app.ingest import decoder as tokens
from stream_app.ingest.decoder import TokenDecoder
from stream_app.kafka import dead_letters
from stream_app.settings import Settings
from tests.support import registries
from tests.support.decoding import KAFKA_MS, T0
from tests.support.producers import Producer, messages
from tests.support.registries import Schemas

PAGE = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text()
KEY = b"the-key"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CODE = re.compile(r"`([^`]*)`")
BECOMES = re.compile(r"(\*key\*|`[^`]*`), (\*Kafka's\*|\S+), (`[^`]*`)( \(goes on\))?")
PAIR = {
    "type": "record",
    "name": "Pair",
    "fields": [{"name": "level", "type": "string"}, {"name": "message", "type": "string"}],
}


LAYOUT_SETTINGS = {
    "XL3M_TIME_FROM_LINE",
    "XL3M_RECORDS_FIELD",
    "XL3M_TEXT",
    "XL3M_TEXT_FIELD",
    "XL3M_TIME_FIELD",
    "XL3M_KEY_FIELD",
}


class Row(NamedTuple):
    """A row of the table of formats."""

    what: str
    settings: dict[str, str]
    value: str
    becomes: list[tuple[str, str, int]]


def table(heading: str, first: str) -> list[list[str]]:
    """The cells of the table below the heading whose first column has that name."""
    part = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = part[part.index(f"| {first} |") :].split("\n\n", 1)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    assert rows
    return rows


def plain(text: str) -> str:
    """A cell's text, its marks replaced by the line breaks and tabs that they stand for."""
    return text.strip("`").replace("⏎", "\n").replace("⇥", "\t")


def ms(time: str) -> int:
    """Milliseconds since the epoch of a time as the page writes it."""
    return (datetime.fromisoformat(time) - EPOCH) // timedelta(milliseconds=1)


def rows() -> Iterator[Row]:
    for what, settings, value, becomes in table("Formats", "what is in the topic"):
        named = dict(each.split("=", 1) for each in CODE.findall(settings))
        chunks = [BECOMES.fullmatch(each) for each in becomes.split("<br>")]
        yield Row(what, named, value, [_chunk(each) for each in chunks])


def _chunk(found: re.Match[str] | None) -> tuple[str, str, int]:
    assert found is not None
    stream, time, text, goes_on = found.groups()
    name = KEY.decode() if stream == "*key*" else plain(stream)
    time_ms = KAFKA_MS if time == "*Kafka's*" else ms(time)
    return name, plain(text) + ("" if goes_on else "\n"), time_ms


ROWS = [*rows()]


def written(value: str, producer: Producer) -> tuple[bytes, list[tuple[str, bytes | None]]]:
    """The bytes that a producer sends, and their headers."""
    headers: list[tuple[str, bytes | None]] = []
    if header := re.fullmatch(r"header `(\w+)=(\w+)`, (.*)", value):
        headers, value = [(header[1], header[2].encode())], header[3]
    kind, _, held = value.rpartition(" of `")
    text = plain(held if kind else value)
    if not kind:
        return text.encode(), headers
    record = json.loads(text)
    if kind == "Protobuf":
        message = json_format.ParseDict(record, messages()["acme.Outer"]())
        return producer.protobuf(message), headers
    others = {
        "msgpack": msgpack.packb,
        "Avro": lambda fields: producer.avro(json.dumps(PAIR), fields),
        "JSON Schema": producer.json,
    }
    return others[kind](record), headers


@pytest.fixture
def schemas() -> Iterator[Schemas]:
    with registries.registry() as made:
        yield made


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
def test_each_example_of_the_page_is_decoded_as_it_says(row: Row, schemas: Schemas) -> None:
    producer = Producer(schemas.url)
    value, headers = written(row.value, producer)
    producer.client.close()
    env = dict(row.settings)
    if "XL3M_SCHEMA_REGISTRY" in env:
        env["XL3M_SCHEMA_REGISTRY"] = schemas.url
    decoder = TokenDecoder(Settings.from_env(env), lambda ids: "")
    asyncio.run(decoder.registry.prepare([(KEY, value, headers)]))
    found, reason = decoder.decode(KEY, value, source="t/0", time_ms=KAFKA_MS, headers=headers)
    decoder.registry.close()
    assert not reason
    assert [(chunk.stream, chunk.text, chunk.time_ms) for chunk in found] == row.becomes


@pytest.mark.guarantee("Event formats")
def test_every_form_and_preset_has_an_example() -> None:
    shown = {row.settings.get("XL3M_INPUT_FORMAT", "lines").removeprefix("json:") for row in ROWS}
    assert shown >= {*FORMS, *PRESETS}


@pytest.mark.guarantee("Event formats")
def test_the_fields_of_presets_are_those_of_the_page() -> None:
    named = {}
    for name, text, time, stream in table("Formats", "preset"):
        preset = form_and_preset(CODE.findall(name)[0])[1]
        said = [CODE.findall(cell) for cell in (text, time, stream)]
        paths_of = [
            [*preset.text.split(","), *filter(None, preset.behind.split(","))],
            preset.time.split(","),
            [*filter(None, preset.key.split(","))],
        ]
        assert said == paths_of, name
        named[CODE.findall(name)[0].removeprefix("json:")] = said
    assert set(named) == set(PRESETS)


@pytest.mark.guarantee("Event formats")
@pytest.mark.parametrize(("time", "meaning"), table("Times", "written as"))
def test_each_time_of_the_page_is_understood_as_it_says(time: str, meaning: str) -> None:
    right = None if meaning.startswith("nothing") else ms(meaning)
    assert times.parse_time(json.loads(plain(time)), T0) == right


@pytest.mark.guarantee("Event formats")
def test_each_key_of_the_page_names_the_stream_it_says() -> None:
    shown = table("Streams and keys", "`XL3M_KEY_FORMAT`")
    for key_format, key, name in shown:
        assert stream_of_key(bytes.fromhex(plain(key)), plain(key_format)) == plain(name)
    assert {plain(row[0]) for row in shown} | {"none"} == set(READERS)


@pytest.mark.guarantee("Event formats")
def test_each_setting_goes_with_the_formats_that_the_page_says() -> None:
    shown_forms = table("Formats", "`XL3M_INPUT_FORMAT`")
    assert {CODE.findall(forms)[0] for forms, _ in shown_forms} == {*FORMS}
    for forms, names in shown_forms:
        form, shown = CODE.findall(forms)[0], {*CODE.findall(names)}
        for name in LAYOUT_SETTINGS:
            env = {
                "XL3M_INPUT_FORMAT": form,
                name: "auto" if name == "XL3M_TIME_FROM_LINE" else "{a}",
            }
            if name in shown:
                Settings.from_env(env)
            else:
                with pytest.raises(SettingsError, match=f"{name} has no effect"):
                    Settings.from_env(env)
        Settings.from_env({"XL3M_INPUT_FORMAT": form, "XL3M_KEY_FIELD": "header:tenant"})


@pytest.mark.guarantee("Event formats")
def test_the_fields_of_dead_letters_are_those_of_the_page() -> None:
    named = {name for row in table("Dead letters", "field") for name in CODE.findall(row[0])}
    letter = json.loads(events.dead_letter("t", 0, 1, b"", b"x" * (events.KEPT_BYTES + 1), ""))
    assert named == set(letter)


@pytest.mark.guarantee("Event formats")
def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    said = dict(table("Limits", "what"))
    numbers: dict[str, Any] = {
        what: [int(number.replace(",", "")) for number in re.findall(r"\b\d[\d,]*", most)]
        for what, most in said.items()
    }
    assert numbers == {
        "a value": [],
        "records of an event": [tokens.MAX_RECORDS],
        "the texts of an event": [tokens.GROWTH, tokens.EXTRA_CHARS],
        "a stream's name": [events.STREAM_BYTES],
        "fields of a template": [templates.FIELDS],
        "steps of a path; paths in a list; arrays within each other": [
            paths.STEPS, paths.PATHS, paths.LEVELS,
        ],
        "items of a list of attributes that are looked at": [paths.ATTRIBUTES],
        "lines of a value that are no JSON, then no more are read": [documents.WRONG_LINES],
        "a text that is read as a time": [times.LONGEST],
    }  # fmt: skip


@pytest.mark.guarantee("Event formats")
def test_as_many_dead_letters_are_said_as_the_page_says() -> None:
    assert "For each topic and kind of reason the log names the first five" in PAGE
    assert dead_letters.LOGGED_EVENTS == 5
