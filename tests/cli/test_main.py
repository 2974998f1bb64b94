"""The command line: instant help, one line per mistake, one line per JSON object."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tiny

ROOT = Path(__file__).parents[2]
NOWHERE = {"XL3M_REDIS": "redis://127.0.0.1:1", "XL3M_BROKER": "kafka://127.0.0.1:1"}


def xl3m(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream_app", *words],
        env=os.environ | NOWHERE | env, capture_output=True, text=True, timeout=100,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model's folder."""
    folder = tmp_path_factory.mktemp("model")
    tiny.save(tiny.make("llama"), folder)
    return str(folder)


def test_help_does_not_wait_for_the_model_libraries() -> None:
    code = "import sys, stream_app.cli.main as c; c.cli(['--help'], standalone_mode=False);"
    code += "print(sorted({'torch', 'transformers', 'faust', 'redis'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


@pytest.mark.guarantee("Redis outages")
@pytest.mark.parametrize(
    "words",
    [
        ("ask", "s", "q?"),
        ("streams",),
        ("feed", __file__),
        ("worker",),
        ("watch", "s"),
        ("rebuild", "--all"),
    ],
)
def test_services_out_of_reach_are_one_line_and_code_3(words: tuple[str, ...]) -> None:
    done = xl3m(*words)
    assert done.returncode == 3, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert ("Kafka" if words[0] == "feed" else "Redis") in done.stderr


@pytest.mark.parametrize(
    ("words", "env", "named"),
    [
        (("ask",), {}, "STREAM"),
        (("rebuild",), {}, "--stream"),
        (("rebuild", "--all", "--stream", "s"), {}, "--all"),
        (("worker",), {"XL3M_LOG_FORMAT": "xml"}, "XL3M_LOG_FORMAT"),
        (("feed", "/no/such/file"), {}, "/no/such/file"),
        (("streams",), {"XL3M_K": "many"}, "XL3M_K"),
        (("streams", "--redis", "http://x"), {}, "XL3M_REDIS"),
        (("run", __file__, "-q", "x?", "--model", "/no/such/model"), {}, "/no/such/model"),
        (("nonsense",), {}, "nonsense"),
        (("watch", "s", "--replace"), {}, "-q"),
        (("streams",), {"XL3M_WATCHDOG_SECONDS": "1e10"}, "XL3M_WATCHDOG_SECONDS"),
        (("streams",), {"XL3M_MAX_EVENT_BYTES": "600000000"}, "XL3M_MAX_EVENT_BYTES"),
    ],
)
def test_mistakes_are_named_without_a_traceback(
    words: tuple[str, ...], env: dict[str, str], named: str
) -> None:
    done = xl3m(*words, **env)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words", [("streams",), ("ask", "s", "q?"), ("worker",), ("feed", __file__)]
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_mistyped_variable_is_a_warning(words: tuple[str, ...], form: str) -> None:
    done = xl3m(*words, XL3M_TEXT_FEILD="hunter2", XL3M_LOG_FORMAT=form)
    assert done.returncode == 3 and "hunter2" not in done.stderr
    warning, error = done.stderr.splitlines()
    assert "XL3M_TEXT_FEILD is not a setting: XL3M_TEXT_FIELD?" in warning
    assert ("Kafka" if words[0] == "feed" else "Redis") in error
    if words == ("worker",) and form == "json":
        assert json.loads(warning)["level"] == "WARNING"


def test_a_mistyped_variable_is_named_though_another_setting_is_wrong() -> None:
    done = xl3m("streams", XL3M_TEXT_FEILD="x", XL3M_K="many")
    assert done.returncode == 2
    assert "XL3M_TEXT_FIELD?" in done.stderr and "XL3M_K must be" in done.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("ask", "s", "q?", "--deadline", "91"), "--deadline (XL3M_QUERY_DEADLINE_SECONDS)"),
        (("streams", "--redis", "http://x"), "--redis (XL3M_REDIS)"),
        (("worker", "--group", ""), "--group (XL3M_GROUP)"),
    ],
)
def test_what_is_wrong_with_an_option_is_named_by_it(words: tuple[str, ...], named: str) -> None:
    done = xl3m(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"xl3m: {named} must be ")


def test_a_query_nobody_hears_says_what_to_start(redis_url: str) -> None:
    done = xl3m("ask", "s", "q?", XL3M_REDIS=redis_url)
    assert done.returncode == 3
    assert "xl3m worker" in done.stderr


def test_run_answers_from_a_file_one_object_a_line(model: str, tmp_path: Path) -> None:
    text = tmp_path / "log"
    text.write_text("".join(f"line {i} pump\n" for i in range(40)))
    done = xl3m("run", str(text), "-q", "a?", "-q", "b?", "--json", "--model", model)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["question"] for answer in answers] == ["a?", "b?"]
    for answer in answers:
        assert list(answer) == [
            "question", "answer", "certainty", "grounded", "coverage", "as_of", "evidence",
            "timings",
        ]  # fmt: skip
        for evidence in answer["evidence"]:
            assert text.read_text()[evidence["start"] : evidence["end"]] == evidence["text"]


def test_output_nobody_reads_any_more_is_no_error(model: str, tmp_path: Path) -> None:
    text = tmp_path / "log"
    text.write_text("pump\n")
    command = f"'{sys.executable}' -m stream_app run '{text}' --model '{model}' --json"
    command += " -q a? -q b? | true; exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=100)
    assert done.returncode in (0, 1)  # depends on when the reader closed the pipe
    assert "Traceback" not in done.stderr and "Redis" not in done.stderr
