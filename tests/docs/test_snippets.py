"""Code, commands, settings, metrics and examples of the documentation are real."""

import base64
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

from benchmarks.__main__ import ALL as BENCHMARKS
from benchmarks.__main__ import parser as benchmarks_parser
from stream_app import events
from stream_app.cli.main import cli
from stream_app.errors import BadEvent, UnreachableError
from stream_app.queries.publisher import ReplyStream
from stream_app.requests import Query, decode_query, decode_question
from stream_app.scoring.scorer import update_message
from stream_app.settings import Settings
from stream_app.settings.variables import SECRETS, variable
from tests.docs.pages import PAGES, ROOT, blocks, commands, name_of, table
from xl3m_core import Answer, Evidence

README, DOCS = ROOT / "README.md", ROOT / "docs"
API, EVENTS, OPERATIONS = DOCS / "api.md", DOCS / "events.md", DOCS / "operations.md"
LIMIT = 1 << 20
FOR_TESTS_ONLY = {"XL3M_TEST_BROKER", "XL3M_REQUIRE_KAFKA"}
NO_METRICS = {"xl3m_answer", "xl3m_core", "xl3m_k", "xl3m_measure", "xl3m_question_template"}
XL3M = re.compile(r"(?<![\w.:/-])(?:\.venv/bin/)?xl3m ([a-z]+)(?![\w.:])([^|;<>]*)")
OPTION = re.compile(r"(?<=\s)--?[a-zA-Z][\w-]*")
MAKE = re.compile(r"^make ([a-z]+)")
BENCHMARK = re.compile(r"python -m benchmarks ([a-z_]+)(.*)")


def json_examples(page: Path) -> list[dict[str, Any]]:
    return [json.loads(code) for code in blocks(page, "json")]


# -- Python ------------------------------------------------------------------------------------


def run(code: str, page: Path) -> None:
    exec(compile(code, page.name, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", [README, API], ids=name_of)
def test_the_snippet_of_the_library_answers(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(blocks(page, "python")[0], page)
    assert "8123" in capsys.readouterr().out


def test_the_snippet_of_the_client_asks_and_is_told_that_no_worker_listens(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XL3M_REDIS", redis_url)
    monkeypatch.setenv("XL3M_PREFIX", "docs")
    with pytest.raises(UnreachableError, match="worker"):
        run(blocks(API, "python")[1], API)


def test_there_is_no_other_python() -> None:
    assert sum(len(blocks(page, "python")) for page in PAGES) == 3


# -- commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_its_options_exist(page: Path) -> None:
    unknown = list[str]()
    for line in commands(page):
        for verb, rest in XL3M.findall(line):
            command = cli.commands.get(verb)
            words = re.sub(r"'[^']*'|\"[^\"]*\"", "", rest)
            known = {"--help", "-h"} | options_of(command)
            if command is None or set(OPTION.findall(words)) - known:
                unknown.append(line)
    assert not unknown


def options_of(command: click.Command | None) -> set[str]:
    parameters = command.params if command else []
    return {name for each in parameters for name in [*each.opts, *each.secondary_opts]}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_target_of_make_exists(page: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    named = {name for line in commands(page) for name in MAKE.findall(line)}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_benchmark_and_its_options_exist(page: Path) -> None:
    named = [found for line in commands(page) for found in BENCHMARK.findall(line)]
    names = {name for name, _ in named}
    options = {option for _, rest in named for option in OPTION.findall(rest)}
    assert names <= set(BENCHMARKS)
    assert options <= set(benchmarks_parser()._option_string_actions)


# -- settings and metrics ----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_setting_named_exists(page: Path) -> None:
    known = set(map(variable, Settings.model_fields)) | FOR_TESTS_ONLY
    known |= {f"{variable(name)}_FILE" for name in SECRETS}
    assert set(re.findall(r"XL3M_[A-Z_]*[A-Z]", page.read_text())) <= known


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_metric_named_is_in_the_table_of_metrics(page: Path) -> None:
    listed = set(re.findall(r"`(xl3m_\w+)", OPERATIONS.read_text()))
    named = set(re.findall(r"`(xl3m_\w+)[`{]", page.read_text()))
    assert named - NO_METRICS <= listed


# -- examples ----------------------------------------------------------------------------------


def test_the_questions_of_the_table_are_taken() -> None:
    for value, effect in table(EVENTS, "Questions"):
        made = decode_question(b"web-1", plain(value), LIMIT)
        assert (made.stream, made.add) == ("web-1", "one more" in effect)
        assert made.question == (None if value == "empty" else "Which host fails?")


def test_the_queries_of_the_table_are_taken() -> None:
    for value, _ in table(EVENTS, "Queries"):
        made = decode_query(b"web-1", plain(value), LIMIT, id="xl3m.queries/0/7")
        assert made.stream == "web-1"
        assert made.id == ("q1" if '"id"' in value else "xl3m.queries/0/7")


def plain(cell: str) -> bytes:
    return b"" if cell == "empty" else cell.strip("`").encode()


def test_the_dead_letter_is_what_is_sent() -> None:
    (example,) = json_examples(EVENTS)
    key, value = (base64.b64decode(example[name]) for name in ("key", "value"))
    with pytest.raises(BadEvent) as refused:
        decode_query(key, value, LIMIT)
    topic, partition, offset = (example[name] for name in ("topic", "partition", "offset"))
    letter = events.dead_letter(topic, partition, offset, key, value, str(refused.value))
    assert events.decode(letter) == example


def test_the_answer_has_the_fields_of_an_answer() -> None:
    example = json_examples(API)[0]
    assert list(example) == list(Answer("?").to_dict())
    assert list(example["evidence"][0]) == [field.name for field in fields(Evidence)]


def test_the_messages_of_pubsub_decode_to_what_they_say() -> None:
    _, piece, answer, update, draft, revision = json_examples(API)
    reply = ReplyStream(Query("q1", "web-1"))
    reply.draft(1, "81")
    reply.revised(1, Answer("Which host fails?", "web-17"))
    assert events.decode(reply.messages.get_nowait() or b"") == draft
    made = events.decode(reply.messages.get_nowait() or b"")
    assert revision.items() <= (made | {"coverage": revision["coverage"]}).items()
    assert list(piece) == ["type", "id", "text"]
    assert list(answer)[:3] == ["id", "stream", "type"]
    assert set(answer) - {"id", "stream", "type"} <= set(Answer("?").to_dict())
    stream, question, qid = (update[name] for name in ("stream", "question", "question_id"))
    assert events.decode(update_message(stream, question, qid, *update["range"])) == update


# -- size ---------------------------------------------------------------------------------------


def test_the_readme_stays_short() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.encode()) <= 9 * 1024
